//! Compression of batches: the codecs that Kafka knows, each in the form that brokers and readers of all versions take.
//! (<https://kafka.apache.org/documentation/#recordbatch>, KIP-110 for zstd)
//!
//! Without the feature `compression` there is the name of a codec only.

#[cfg(feature = "compression")]
mod batches;
mod codec;
#[cfg(feature = "compression")]
mod compressor;
#[cfg(feature = "compression")]
mod encode;
#[cfg(feature = "compression")]
mod gzip;
#[cfg(feature = "compression")]
mod lz4;
#[cfg(feature = "compression")]
mod snappy;
#[cfg(feature = "compression")]
mod zstd;

#[cfg(feature = "compression")]
pub use batches::{put_compressed_batch, put_compressed_set};
pub use codec::Codec;
#[cfg(feature = "compression")]
pub use compressor::Compressor;

#[cfg(all(test, feature = "compression", not(loom)))]
mod tests;
