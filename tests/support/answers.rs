//! Decoding any answer in any version, under an allocator that counts. Shared by the test of
//! hostile answers and the fuzz target.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lkfk::internals::protocol::api_versions::ApiVersionsResponse;
use lkfk::internals::protocol::header::{ApiKey, read_response_header};
use lkfk::internals::protocol::init_producer_id::InitProducerIdResponse;
use lkfk::internals::protocol::metadata::MetadataResponse;
use lkfk::internals::protocol::primitives::{DecodeError, Reader};
use lkfk::internals::protocol::produce::ProduceResponse;
use lkfk::internals::protocol::sasl::{SaslAuthenticateResponse, SaslHandshakeResponse};

/// Every API whose answers are decoded.
pub const APIS: [ApiKey; 6] = [
    ApiKey::Produce,
    ApiKey::Metadata,
    ApiKey::ApiVersions,
    ApiKey::InitProducerId,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
];

/// The most memory that decoding an answer of this size may take.
pub fn allowed_memory(answer_len: usize) -> usize {
    4 * answer_len + 512 * 1024
}

/// Decodes a header and a body, and drops what came of it.
pub fn decode(api: ApiKey, version: i16, answer: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(answer);
    read_response_header(&mut reader, api, version)?;
    match api {
        ApiKey::Produce => ProduceResponse::decode(version, &mut reader).map(drop),
        ApiKey::Metadata => MetadataResponse::decode(version, &mut reader).map(drop),
        ApiKey::ApiVersions => ApiVersionsResponse::decode(version, &mut reader).map(drop),
        ApiKey::InitProducerId => InitProducerIdResponse::decode(version, &mut reader).map(drop),
        ApiKey::SaslHandshake => SaslHandshakeResponse::decode(version, &mut reader).map(drop),
        ApiKey::SaslAuthenticate => {
            SaslAuthenticateResponse::decode(version, &mut reader).map(drop)
        }
    }
}

/// The most memory that this thread held at one time during `work`, on top of what it held before.
pub fn peak_memory<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and what each thread holds of it.
pub struct Counting;

// SAFETY: every call is passed on to `System` unchanged, which keeps `GlobalAlloc`'s contract.
// Counting touches only thread-local cells without destructors, so it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        release(layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While the content moves, both are held.
        hold(size);
        release(layout.size());
        // SAFETY: the caller keeps `realloc`'s contract, and `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn hold(size: usize) {
    let held = HELD.get().wrapping_add(size);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

/// Wraps where a thread frees what another one allocated.
fn release(size: usize) {
    HELD.set(HELD.get().wrapping_sub(size));
}
