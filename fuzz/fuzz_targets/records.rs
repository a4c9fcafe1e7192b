//! Records out of arbitrary bytes: for each whether it has a key, the lengths of key and payload, the
//! timestamp, and their bytes.

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
            records.push(Record::take(&mut self));
        }
        records
    }
}

pub struct Record<'a> {
    pub timestamp_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    fn take(input: &mut Input<'a>) -> Self {
        let [has_key, key_len] = input.number();
        let value_len = u16::from_le_bytes(input.number());
        // The reader of batches adds deltas without wrapping: a quarter of the range is what it takes.
        let timestamp_ms = i64::from_le_bytes(input.number()) >> 2;
        let key = input.take(usize::from(key_len));
        let value = input.take(usize::from(value_len));
        Self { timestamp_ms, key: (has_key & 1 == 1).then_some(key), value }
    }

    pub fn key_len(&self) -> Option<usize> {
        self.key.map(<[u8]>::len)
    }
}
