//! Messages and their bytes, counted together.

use crate::producer::Record;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver) struct Amount {
    pub records: u64,
    pub bytes: u64,
}

impl Amount {
    pub fn of(records: &[Record]) -> Amount {
        let bytes = records.iter().map(|record| u64::from(record.bytes)).sum();
        Amount { records: records.len() as u64, bytes }
    }

    pub fn is_nothing(self) -> bool {
        self == Amount::default()
    }

    pub fn add(&mut self, other: Amount) {
        self.records += other.records;
        self.bytes += other.bytes;
    }

    pub fn subtract(&mut self, other: Amount) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }

    /// What is left when `other` goes; nothing is less than nothing.
    pub fn without(self, other: Amount) -> Amount {
        Amount {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// True when `self` has not as much of either as is `wanted`.
    pub fn is_short_of(self, wanted: Amount) -> bool {
        self.records < wanted.records || self.bytes < wanted.bytes
    }
}
