//! Decodes arbitrary answers: no panic, and no more memory than the size of the answer allows.
//!
//! The first byte selects the API, the second is the version, the rest is the frame from the
//! correlation id on. Run with `cargo +nightly fuzz run answers`.

#![no_main]

#[path = "../../tests/support/answers.rs"]
mod answers;

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: answers::Counting = answers::Counting;

fuzz_target!(|input: &[u8]| {
    let [api, version, answer @ ..] = input else { return };
    let api = answers::APIS[usize::from(*api) % answers::APIS.len()];
    let version = i16::from(*version as i8);
    let (_, peak) = answers::peak_memory(|| answers::decode(api, version, answer));
    assert!(peak <= answers::allowed_memory(answer.len()), "{peak} bytes of memory");
});
