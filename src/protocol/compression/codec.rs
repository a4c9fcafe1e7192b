//! The names of codecs, and which brokers take them.

/// A codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// One gzip member.
    Gzip,
    /// Blocks of snappy in the framing of snappy-java (xerial).
    Snappy,
    /// One LZ4 frame.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// From this version of Produce on brokers take zstd.
const ZSTD_SINCE: i16 = 7;

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// Its name in Kafka's configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// What the attributes of a batch, or of a message, say of it.
    pub const fn attributes(self) -> i8 {
        match self {
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// Whether a broker takes it that is sent this version of Produce.
    pub const fn is_taken_in(self, produce_version: i16) -> bool {
        !matches!(self, Codec::Zstd) || produce_version >= ZSTD_SINCE
    }
}
