//! Parses configurations of arbitrary keys and values: no panic, errors of one short clean line, and what
//! is accepted is parsed to the same again.
//!
//! The input is a list of entries: a byte that chooses the key (or says that the key follows as text), a
//! byte for the type of the value, and the value. Run with `cargo +nightly fuzz run config`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lkfk::internals::config::{Config, KEYS, Value};
use lkfk::internals::producer::Rules;

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let [byte, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *byte
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn number(&mut self) -> [u8; 8] {
        std::array::from_fn(|_| self.byte())
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.byte() % 9 {
            0 => Value::Bool(self.byte() & 1 == 1),
            1 => Value::Int(i64::from_be_bytes(self.number())),
            2 => Value::Int(i64::from(self.byte() as i8)),
            3 => Value::Float(f64::from_bits(u64::from_be_bytes(self.number()))),
            4 | 5 => Value::Text(self.bytes().to_vec()),
            6 if depth < 3 => {
                let len = self.byte() % 5;
                Value::List((0..len).map(|_| self.value(depth + 1)).collect())
            }
            7 if depth < 3 => {
                let len = self.byte() % 5;
                Value::Map((0..len).map(|_| (self.text(), self.value(depth + 1))).collect())
            }
            _ => Value::Other("function"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut entries = vec![("metadata_broker_list".to_owned(), Value::Text(b"b:1".to_vec()))];
    while !input.0.is_empty() {
        let choice = usize::from(input.byte());
        let key = match KEYS.get(choice % (KEYS.len() + 1)) {
            None => input.text(),
            // The same key under one of its names.
            Some(key) => match key.aliases.get(choice % (key.aliases.len() + 1)) {
                None => key.name.replace('_', if choice % 2 == 0 { "." } else { "_" }),
                Some(alias) => (*alias).to_owned(),
            },
        };
        entries.push((key, input.value(0)));
    }
    match Config::parse(&entries, "/prefix") {
        Ok(config) => {
            assert!(!config.brokers.metadata_broker_list.is_empty());
            assert!(config.delivery.message_max_bytes as u64 <= config.queue.bytes() / 4);
            let rules = Rules::from(&config);
            assert!(rules.batch_records > 0 && rules.max_in_flight > 0);
            assert!(rules.retry_backoff <= rules.retry_backoff_max);
            assert!(Config::parse(&entries, "/prefix").is_ok_and(|again| again == config));
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= 1024, "{} bytes", text.len());
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
});
