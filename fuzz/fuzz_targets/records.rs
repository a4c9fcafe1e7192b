//! Records out of arbitrary bytes: for each whether it has a key, the lengths of key and payload, the
//! timestamp, and their bytes.

use lkfk::internals::record::Record;

pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next bytes, fewer at the end.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// What is left, as records.
    pub fn records(mut self) -> Vec<Record<'a>> {
        let mut records = Vec::new();
        while !self.0.is_empty() {
            records.push(take_record(&mut self));
        }
        records
    }
}

fn take_record<'a>(input: &mut Input<'a>) -> Record<'a> {
    let [nulls, key_len] = input.number();
    let payload_len = u16::from_le_bytes(input.number());
    // The reader of batches adds deltas without wrapping: a quarter of the range is what it takes.
    let timestamp_ms = i64::from_le_bytes(input.number()) >> 2;
    let key = input.take(usize::from(key_len));
    let payload = input.take(usize::from(payload_len));
    let (has_key, has_payload) = (nulls & 1 == 1, nulls & 2 == 0);
    Record::new(timestamp_ms, has_key.then_some(key), has_payload.then_some(payload))
}
