//! What a record costs on its way into a batch: the thread that sends does this for each of them.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lkfk::internals::protocol::produce::{ProduceEncoder, TopicRef};
use lkfk::internals::protocol::record_batch::{
    BATCH_OVERHEAD, BatchEncoder, ProducerStamp, record_size_bound,
};
use lkfk::internals::record::Record;

const RECORDS: usize = 500;
const NOW_MS: i64 = 1_760_000_000_000;

fn batch_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_encode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (name, key, payload_len) in
        [("400 B", None, 400), ("400 B, keyed", Some(&b"user-4711"[..]), 400), ("100 B", None, 100)]
    {
        let payload = vec![b'x'; payload_len];
        let bound = record_size_bound(&Record::new(NOW_MS, key, Some(&payload)));
        group.bench_function(name, |bencher| {
            let mut out = Vec::with_capacity(BATCH_OVERHEAD + RECORDS * bound);
            bencher.iter(|| {
                out.clear();
                encode(&mut out, key, black_box(&payload));
                black_box(out.len())
            });
        });
    }

    let payload = vec![b'x'; 400];
    let hint =
        BATCH_OVERHEAD + RECORDS * record_size_bound(&Record::new(NOW_MS, None, Some(&payload)));
    group.bench_function("400 B, in a request", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(hint + 256),
            |out| {
                let mut request = ProduceEncoder::begin(out, 12, 1, "lkfk", -1, 5000, 1);
                request.topic(TopicRef { name: "access-log", id: uuid::Uuid::nil() }, 1);
                request.partition(0, hint, |out| encode(out, None, black_box(&payload)));
                request.finish();
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn encode(out: &mut Vec<u8>, key: Option<&[u8]>, payload: &[u8]) {
    let mut batch = BatchEncoder::begin(out, ProducerStamp::NONE);
    for record in 0..RECORDS {
        batch.push(&Record::new(NOW_MS + record as i64 / 50, key, Some(payload)));
    }
    batch.finish();
}

criterion_group!(benches, batch_encode);
criterion_main!(benches);
