//! Which codec a request gets, and the memory that codecs need.

use super::super::context::Context;
use super::super::report::brokers::BrokerReport;
use crate::config::Config;
use crate::protocol::compression::{Codec, Compressor, put_compressed_batch, put_compressed_set};
use crate::protocol::message_set::{MessageFormat, MessageSetEncoder};
use crate::protocol::record_batch::{BatchEncoder, ProducerStamp};
use crate::record::Record;

/// The compression of one producer's batches.
pub(super) struct Compression {
    /// By preference.
    codecs: Vec<Codec>,
    compressor: Compressor,
    /// What the batches of the last request came to, in their order.
    sizes: Vec<usize>,
    /// Records of the last request whose headers its format has no place for.
    without_headers: usize,
    was_told: bool,
}

/// How the records of one request are encoded.
pub(super) struct Encoding<'a> {
    /// `None` where the request has record batches.
    format: Option<MessageFormat>,
    codec: Option<(&'a mut Compressor, Codec)>,
    /// Where sizes are put, when anything is to be compressed: also of what no codec is taken for.
    sizes: Option<&'a mut Vec<usize>>,
    without_headers: &'a mut usize,
}

impl Compression {
    pub fn new(config: &Config) -> Compression {
        let level = Some(config.delivery.compression_level).filter(|level| *level >= 0);
        Compression {
            codecs: config.delivery.compression_codec.0.clone(),
            compressor: Compressor::new(level),
            sizes: Vec::new(),
            without_headers: 0,
            was_told: false,
        }
    }

    /// The first codec that is taken in this version of Produce.
    fn codec(&self, produce_version: i16) -> Option<Codec> {
        self.codecs.iter().copied().find(|codec| codec.is_taken_in(produce_version))
    }

    /// Says, once, that a broker does not take the codec that was wanted.
    pub fn tell(&mut self, cx: &Context<'_>, address: &str, produce_version: i16) {
        let codec = self.codec(produce_version);
        let Some(wanted) = self.codecs.first().filter(|wanted| Some(**wanted) != codec) else {
            return;
        };
        if std::mem::replace(&mut self.was_told, true) {
            return;
        }
        let (wanted, used, produce) = (*wanted, codec, produce_version);
        cx.shared.report(&BrokerReport::CodecPassedOver { address, produce, wanted, used });
    }

    /// For a request in this version of Produce.
    pub fn encoding(&mut self, produce_version: i16) -> Encoding<'_> {
        let codec = self.codec(produce_version);
        Encoding {
            format: MessageFormat::of_produce(produce_version),
            codec: codec.map(|codec| (&mut self.compressor, codec)),
            sizes: (!self.codecs.is_empty()).then_some(&mut self.sizes),
            without_headers: &mut self.without_headers,
        }
    }

    /// How many records of the request that was encoded last had to leave their headers behind.
    pub fn take_without_headers(&mut self) -> usize {
        std::mem::take(&mut self.without_headers)
    }

    /// What the batches of the request that was encoded last came to, in their order; none without compression.
    pub fn take_sizes(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.sizes)
    }
}

impl Encoding<'_> {
    /// Appends the records of one partition, which `records` gives as often as it is asked.
    pub fn put<'r, R: Iterator<Item = Record<'r>>>(
        &mut self,
        out: &mut Vec<u8>,
        stamp: Option<ProducerStamp>,
        records: impl Fn() -> R,
    ) {
        if self.format.is_some() {
            *self.without_headers += records().filter(|record| !record.headers.is_empty()).count();
        }
        let start = out.len();
        let stamp = stamp.unwrap_or(ProducerStamp::NONE);
        let is_compressed = match (&mut self.codec, self.format) {
            (None, _) => false,
            (Some((compressor, codec)), None) => {
                put_compressed_batch(out, stamp, (compressor, *codec), &records)
            }
            (Some((compressor, codec)), Some(format)) => {
                put_compressed_set(out, format, (compressor, *codec), &records)
            }
        };
        if !is_compressed {
            put_plain(out, self.format, stamp, records());
        }
        if let Some(sizes) = &mut self.sizes {
            sizes.push(out.len() - start);
        }
    }
}

fn put_plain<'r>(
    out: &mut Vec<u8>,
    format: Option<MessageFormat>,
    stamp: ProducerStamp,
    records: impl Iterator<Item = Record<'r>>,
) {
    match format {
        None => {
            let mut batch = BatchEncoder::begin(out, stamp);
            records.for_each(|record| batch.push(&record));
            batch.finish();
        }
        Some(format) => {
            let mut set = MessageSetEncoder::begin(out, format);
            records.for_each(|record| set.push(&record));
            set.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Value;

    fn compression(codecs: &str) -> Compression {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        let entries = [("metadata_broker_list", text("b:1")), ("compression_codec", text(codecs))];
        let entries = entries.map(|(key, value)| (key.to_owned(), value));
        Compression::new(&Config::parse(&entries, "/prefix").unwrap())
    }

    #[test]
    fn the_first_codec_is_used_that_the_broker_takes() {
        let codec = |codecs, produce_version| compression(codecs).codec(produce_version);
        assert_eq!(codec("none", 13), None);
        assert_eq!(codec("zstd,lz4", 13), Some(Codec::Zstd));
        assert_eq!(codec("zstd,lz4", 6), Some(Codec::Lz4));
        assert_eq!(codec("zstd", 6), None);
        assert_eq!(codec("snappy,zstd", 7), Some(Codec::Snappy));
    }

    #[test]
    fn headers_are_counted_that_a_format_has_no_place_for() {
        let mut buf = crate::record::HeadersBuf::default();
        buf.push("a", Some(b"b"));
        let block = buf.into_block();
        let with = Record {
            headers: crate::record::Headers::check(&block).unwrap(),
            ..Record::new(0, None, Some(b"payload"))
        };
        let without = Record::new(0, None, Some(b"payload"));
        let mut compression = compression("none");
        for (version, expected) in [(1, 2), (2, 2), (3, 0)] {
            let records = || [with, without, with].into_iter();
            compression.encoding(version).put(&mut Vec::new(), None, records);
            assert_eq!(compression.take_without_headers(), expected);
            assert_eq!(compression.take_without_headers(), 0);
        }
    }

    #[test]
    fn the_size_of_each_batch_is_known_once_and_none_without_a_codec() {
        let record = || std::iter::once(Record::new(0, None, Some(&[b'x'; 1000])));
        let mut compression = compression("lz4,gzip");
        for version in [0, 2, 13] {
            let mut out = Vec::new();
            let mut encoding = compression.encoding(version);
            encoding.put(&mut out, None, record);
            encoding.put(&mut out, None, record);
            let sizes = compression.take_sizes();
            assert_eq!(sizes, [out.len() / 2; 2]);
            assert!(out.len() < 300);
            assert!(compression.take_sizes().is_empty());
        }
        // Also where a broker takes none of the codecs.
        let mut compression = self::compression("zstd");
        let mut out = Vec::new();
        compression.encoding(6).put(&mut out, None, record);
        assert_eq!(compression.take_sizes(), [out.len()]);
        let mut plain = self::compression("none");
        plain.encoding(13).put(&mut Vec::new(), None, record);
        assert!(plain.take_sizes().is_empty());
    }
}
