//! The configuration: one [table of keys](KEYS), from which the parser, its error messages and the manual come.
//!
//! Keys are librdkafka's with underscores, or the original module's. A value is refused here or never:
//! what is in a [`Config`] has the right type and lies within its range. Its parts are given to those who go by them.

mod authentication;
mod brokers;
mod choices;
mod keys;
mod ranges;
mod security;
mod tls;
mod units;
mod value;

pub use brokers::HostPort;
pub use choices::{Overflow, Replay, ReplayRate};
pub use keys::{
    BackupConfig, BrokerConfig, Config, DeliveryConfig, KEYS, Key, QueueConfig, SecurityConfig,
};
#[cfg(test)]
pub use security::Secret;
pub use security::{Credentials, FEWEST_ITERATIONS, Mechanism};
pub use tls::{Pem, PemSource, TlsSettings};
pub use value::Value;

use std::path::{Path, PathBuf};

/// Why a configuration was refused. The text names the key and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nobody knows this key.
    #[error("not valid kafka conf: {key}{}", nearest.as_ref().map(|n| format!(" (did you mean {n}?)")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The value is of the wrong type or out of range.
    #[error("{key}: expected {expected}, got {got}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What the key takes.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Two values that do not go together, or a required one is missing.
    #[error("{0}")]
    Conflict(String),
}

impl Config {
    /// Lays `entries` over the defaults. `prefix` is nginx's, from which the default of `backpath` comes and below which
    /// relative paths lie. The last of two equal keys wins.
    pub fn parse(entries: &[(String, Value)], prefix: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.backup.backpath = PathBuf::from("backup");
        config.queue.instance = prefix.to_owned();
        for (name, value) in entries {
            let key = find(name)?;
            (key.set)(&mut config, value).map_err(|got| ConfigError::BadValue {
                key: key.name,
                expected: (key.takes)(),
                got,
            })?;
        }
        // As nginx treats its own paths: where it was started from does not matter. People read them in the log, so
        // without a second slash, or whatever else they may as well do without.
        for path in [&mut config.backup.backpath, &mut config.queue.queue_path] {
            *path = Path::new(prefix).join(&*path).components().collect();
        }
        let SecurityConfig { ssl_ca_location, ssl_certificate_location, ssl_key_location, .. } =
            &mut config.security;
        for path in [ssl_ca_location, ssl_certificate_location, ssl_key_location] {
            if !path.as_os_str().is_empty() {
                *path = Path::new(prefix).join(&*path).components().collect();
            }
        }
        config.check()?;
        Ok(config)
    }

    /// Checks what no key can check alone.
    fn check(&self) -> Result<(), ConfigError> {
        if self.brokers.metadata_broker_list.is_empty() {
            return conflict(
                "metadata_broker_list is empty: set it to at least one \"host:port\"".into(),
            );
        }
        let message_bytes = self.delivery.message_max_bytes;
        if message_bytes as u64 > self.queue.bytes() / 4 {
            return conflict(format!(
                "message_max_bytes ({message_bytes}) is more than a quarter of the queue: raise \
                 queue_buffering_max_kbytes to at least {}",
                (message_bytes * 4).div_ceil(1024),
            ));
        }
        self.backup.check(message_bytes)?;
        self.check_security()?;
        self.delivery.check()?;
        let BrokerConfig { reconnect_backoff_ms, reconnect_backoff_max_ms, .. } = self.brokers;
        check_backoff("reconnect_backoff", reconnect_backoff_ms, reconnect_backoff_max_ms)
    }
}

impl DeliveryConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.enable_idempotence == Some(true) && self.request_required_acks != -1 {
            return conflict(format!(
                "enable_idempotence needs request_required_acks = -1, not {}",
                self.request_required_acks
            ));
        }
        check_backoff("retry_backoff", self.retry_backoff_ms, self.retry_backoff_max_ms)
    }
}

impl BackupConfig {
    fn check(&self, message_max_bytes: usize) -> Result<(), ConfigError> {
        let (total, file) = (self.backup_total_bytes, self.backup_max_bytes);
        if total < file {
            return conflict(format!(
                "backup_total_bytes ({total}) is less than backup_max_bytes ({file})"
            ));
        }
        // Every byte may be escaped, and a line has a time and a topic.
        let longest_line = 2 * message_max_bytes as u64 + 1024;
        if total < longest_line {
            return conflict(format!(
                "backup_total_bytes ({total}) cannot hold a message of message_max_bytes ({message_max_bytes}): raise it \
                 to at least {longest_line}",
            ));
        }
        Ok(())
    }
}

fn conflict(text: String) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict(text))
}

fn check_backoff(name: &str, low: u64, high: u64) -> Result<(), ConfigError> {
    if low > high {
        return conflict(format!("{name}_ms ({low}) is more than {name}_max_ms ({high})"));
    }
    Ok(())
}

/// The row of a key or of one of its aliases. Dots count as underscores, as librdkafka writes them.
fn find(name: &str) -> Result<&'static Key, ConfigError> {
    let plain = name.replace('.', "_");
    KEYS.iter().find(|key| key.name == plain || key.aliases.contains(&&*plain)).ok_or_else(|| {
        let nearest = KEYS
            .iter()
            .flat_map(|key| std::iter::once(key.name).chain(key.aliases.iter().copied()))
            .map(|known| (distance(&plain, known), known))
            .min()
            .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
            .map(|(_, known)| known);
        ConfigError::UnknownKey { key: value::shown(name.as_bytes()), nearest }
    })
}

/// Edits that turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // A key nobody would mistype must not cost a quadratic comparison.
    if a.len() > 128 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::compression::Codec;

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    fn parse(entries: &[(&str, Value)]) -> Result<Config, ConfigError> {
        let mut all = vec![("metadata_broker_list".to_owned(), text("b:1"))];
        all.extend(entries.iter().map(|(key, value)| (key.to_string(), value.clone())));
        Config::parse(&all, "/prefix")
    }

    fn error(entries: &[(&str, Value)]) -> String {
        parse(entries).unwrap_err().to_string()
    }

    #[test]
    fn each_key_takes_its_default_as_the_manual_shows_it() {
        let special = ["nil", "{}", "prefix", "prefix .. \"/backup/\""];
        let mut taken = 0;
        for key in KEYS {
            let shown = (key.default)();
            let value = match &*shown {
                "true" | "false" => Value::Bool(shown == "true"),
                quoted if quoted.starts_with('"') => text(quoted.trim_matches('"')),
                shown if special.contains(&shown) => continue,
                number => match number.parse() {
                    Ok(number) => Value::Int(number),
                    // In words.
                    Err(_) => continue,
                },
            };
            let mut config = Config::default();
            (key.set)(&mut config, &value).unwrap();
            assert_eq!(config, Config::default(), "{}", key.name);
            taken += 1;
        }
        assert!(taken > 35);
    }

    #[test]
    fn times_and_sizes_are_converted_from_the_units_of_their_keys() {
        let config = parse(&[
            ("conn_retry_timeout", Value::Int(7)),
            ("linger_ms", Value::Int(70)),
            ("queue_buffering_max_kbytes", Value::Int(70_000)),
            ("request_timeout_ms", Value::Int(700)),
        ]);
        let config = config.unwrap();
        assert_eq!(config.brokers.left_alone_for().as_millis(), 7_000);
        assert_eq!(config.delivery.linger().as_millis(), 70);
        assert_eq!(config.queue.bytes(), 71_680_000);
        let delivery = &config.delivery;
        assert_eq!(delivery.request_timeout().as_millis(), 700);
        assert_eq!(delivery.request_timeout_on_the_wire(), 700);
    }

    #[test]
    fn unknown_key_names_the_nearest_known_one() {
        assert_eq!(
            error(&[("batch_num_mesages", Value::Int(1))]),
            "not valid kafka conf: batch_num_mesages (did you mean batch_num_messages?)"
        );
        assert_eq!(error(&[("zebra", Value::Int(1))]), "not valid kafka conf: zebra");
    }

    #[test]
    fn wrong_type_and_range_say_what_was_expected() {
        assert_eq!(
            error(&[("batch_num_messages", text("many"))]),
            "batch_num_messages: expected an integer from 1 to 1000000, got \"many\""
        );
        assert_eq!(
            error(&[("batch_num_messages", Value::Int(0))]),
            "batch_num_messages: expected an integer from 1 to 1000000, got 0"
        );
        assert_eq!(
            error(&[("send_key", Value::Int(1))]),
            "send_key: expected true or false, got 1"
        );
        assert!(error(&[("request_required_acks", Value::Int(2))]).contains("expected 1, 0"));
        assert!(error(&[("topics", text("a/b"))]).starts_with("topics: expected"));
    }

    #[test]
    fn aliases_and_dots_reach_the_same_key() {
        let config = parse(&[("linger.ms", Value::Int(7)), ("acks", text("all"))]).unwrap();
        assert_eq!(config.delivery.queue_buffering_max_ms, 7);
        assert_eq!(config.delivery.request_required_acks, -1);
    }

    #[test]
    fn whole_floats_and_numbers_in_text_count_as_integers() {
        let config = parse(&[
            ("request_timeout_ms", Value::Float(250.0)),
            ("message_timeout_ms", text("300")),
        ]);
        let config = config.unwrap();
        assert_eq!(
            (config.delivery.request_timeout_ms, config.delivery.message_timeout_ms),
            (250, 300)
        );
        assert!(parse(&[("request_timeout_ms", Value::Float(0.5))]).is_err());
    }

    #[test]
    fn message_larger_than_a_quarter_of_the_queue_is_a_conflict_that_says_what_to_raise() {
        let error = error(&[("queue_buffering_max_kbytes", Value::Int(1024))]);
        assert!(error.contains("raise queue_buffering_max_kbytes to at least 3907"), "{error}");
    }

    #[test]
    fn a_release_is_taken_in_the_forms_that_librdkafka_takes() {
        let parsed = |release: &str| parse(&[("broker.version.fallback", text(release))]);
        for (release, produce) in [("0.8.2", 0), ("0.9.0.1", 0), ("0.10.0", 2), ("2.8.2", 9)] {
            let versions = parsed(release).unwrap().brokers.broker_version_fallback.versions();
            assert_eq!(versions.produce, produce, "{release}");
        }
        assert_eq!(
            parsed("0.7.2").unwrap_err().to_string(),
            "broker_version_fallback: expected a release of Kafka from 0.8 on, such as \"0.8.2\" or \
             \"0.10.2.1\", got \"0.7.2\""
        );
        assert!(parse(&[("broker_version_fallback", Value::Float(0.9))]).is_err());
    }

    #[test]
    fn replay_and_overflow_take_their_words_and_the_rate_a_number_as_well() {
        let replay = |value: Value| parse(&[("replay", value)]).map(|config| config.backup.replay);
        assert_eq!(replay(Value::Bool(false)), Ok(Replay::Off));
        assert_eq!(replay(text("all")), Ok(Replay::All));
        assert_eq!(
            replay(text("own")).unwrap_err().to_string(),
            "replay: expected true, false or \"all\", got \"own\""
        );
        let rate =
            |value: Value| parse(&[("replay_rate", value)]).map(|config| config.backup.replay_rate);
        assert_eq!(rate(text("auto")), Ok(ReplayRate::Auto));
        assert_eq!(rate(Value::Int(50)), Ok(ReplayRate::Fixed(50)));
        assert_eq!(
            rate(text("fast")).unwrap_err().to_string(),
            "replay_rate: expected \"auto\" or an integer from 0 to 10000000, got \"fast\""
        );
        let overflow = parse(&[("overflow", text("drop_oldest"))]).unwrap().queue.overflow;
        assert_eq!(overflow, Overflow::DropOldest);
        assert_eq!(
            error(&[("overflow", text("block"))]),
            "overflow: expected \"reject\" or \"drop_oldest\", got \"block\""
        );
    }

    #[test]
    fn codecs_are_one_or_a_list_of_preferences_in_any_case() {
        let codecs = |words: &str| {
            parse(&[("compression.type", text(words))]).map(|c| c.delivery.compression_codec.0)
        };
        assert_eq!(codecs("none"), Ok(vec![]));
        assert_eq!(codecs("LZ4"), Ok(vec![Codec::Lz4]));
        assert_eq!(codecs("zstd, gzip,none"), Ok(vec![Codec::Zstd, Codec::Gzip]));
        assert_eq!(
            codecs("brotli").unwrap_err().to_string(),
            "compression_codec: expected \"none\", or one or more of \"gzip\", \"snappy\", \"lz4\", \"zstd\", \
             separated by commas, got \"brotli\""
        );
        for wrong in ["", "gzip,", "none,gzip", "gzip,gzip"] {
            assert!(codecs(wrong).is_err(), "{wrong}");
        }
        assert!(error(&[("compression_level", Value::Int(23))]).contains("from -1 to 22, got 23"));
    }

    #[test]
    fn directory_of_the_backup_holds_one_file_at_least() {
        let error = error(&[("backup_total_bytes", Value::Int(65_536))]);
        assert_eq!(error, "backup_total_bytes (65536) is less than backup_max_bytes (268435456)");
        let small = Value::Int(65_536);
        let error = parse(&[("backup_total_bytes", small.clone()), ("backup_max_bytes", small)]);
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("raise it to at least 2001024"), "{error}");
    }

    #[test]
    fn backpath_and_instance_default_to_the_prefix() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.backup.backpath, PathBuf::from("/prefix/backup"));
        assert_eq!(config.queue.instance, "/prefix");
        assert_eq!(parse(&[("instance", text("edge"))]).unwrap().queue.instance, "edge");
        assert!(parse(&[("instance", text(""))]).is_err());
    }

    #[test]
    fn flt_25_relative_paths_go_by_the_prefix() {
        for key in ["backpath", "queue_path"] {
            let path = |given: &str| {
                let config = parse(&[(key, text(given))]).unwrap();
                if key == "backpath" { config.backup.backpath } else { config.queue.queue_path }
            };
            assert_eq!(path("spool/lkfk"), PathBuf::from("/prefix/spool/lkfk"));
            assert_eq!(path("/var/lib/lkfk"), PathBuf::from("/var/lib/lkfk"));
        }
    }

    #[test]
    fn flt_26_paths_have_no_double_slash() {
        let config = parse(&[("backpath", text("/prefix//backup/"))]).unwrap();
        assert_eq!(config.backup.backpath.to_str(), Some("/prefix/backup"));
        assert_eq!(config.backup.backpath.join("t").to_str(), Some("/prefix/backup/t"));
        let broker = [("metadata_broker_list".to_owned(), text("b:1"))];
        let config = Config::parse(&broker, "/usr//share/nginx/").unwrap();
        assert_eq!(config.backup.backpath.to_str(), Some("/usr/share/nginx/backup"));
    }

    #[test]
    fn key_names_and_aliases_are_unique() {
        let mut names: Vec<&str> =
            KEYS.iter().flat_map(|k| k.aliases.iter().copied().chain([k.name])).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
