//! The C ABI, for callers on nginx's thread: LuaJIT's FFI.
//!
//! Lua gets the address of one [`Api`], compares its version and calls through its pointers, so nothing is
//! looked up by name and nothing is loaded twice. The declarations Lua needs are [`CDEF`].
//!
//! No function here unwinds, blocks (but [`stop`](exit)) or calls back. Every one may be called with any
//! lengths as long as the pointers hold that many bytes; the handle comes from [`Api`] and is never freed.

pub mod exit;
pub mod queue;
pub mod stats;

pub use queue::Handle;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Version of [`Api`]. Lua refuses to work with another.
pub const ABI: u32 = 1;

/// What Lua is given, by address. Lives as long as the process.
#[repr(C)]
pub struct Api {
    /// [`ABI`].
    pub abi: u32,
    /// Bytes of this struct.
    pub size: u32,
    /// First argument of every function.
    pub handle: *const Handle,
    /// See [`queue::lkfk_push`].
    pub push: unsafe extern "C" fn(
        *const Handle,
        u32,
        i32,
        *const c_char,
        usize,
        *const c_char,
        usize,
    ) -> i32,
    /// See [`queue::lkfk_topic`].
    pub topic: unsafe extern "C" fn(*const Handle, *const c_char, usize) -> i32,
    /// See [`exit::lkfk_next_line`].
    pub next_line: unsafe extern "C" fn(*const Handle, *mut c_char, usize, *mut i32) -> i32,
    /// See [`stats::lkfk_stat`].
    pub stat: unsafe extern "C" fn(*const Handle, u32) -> u64,
    /// See [`exit::lkfk_stop`].
    pub stop: unsafe extern "C" fn(*const Handle),
    /// See [`exit::lkfk_write_line`].
    pub write_line: unsafe extern "C" fn(*const c_char, usize, i32),
}

// SAFETY: an Api is never written after it was made; its handle is used on nginx's thread only.
unsafe impl Sync for Api {}
// SAFETY: as above.
unsafe impl Send for Api {}

/// The declarations for `ffi.cdef`. A test holds them against [`Api`].
pub const CDEF: &str = "
typedef struct lkfk_handle lkfk_handle;
typedef struct {
  uint32_t abi;
  uint32_t size;
  const lkfk_handle *handle;
  int32_t (*push)(const lkfk_handle *handle, uint32_t topic, int32_t partition, const char *key,
                  size_t key_len, const char *payload, size_t payload_len);
  int32_t (*topic)(const lkfk_handle *handle, const char *name, size_t name_len);
  int32_t (*next_line)(const lkfk_handle *handle, char *line, size_t size, int32_t *level);
  uint64_t (*stat)(const lkfk_handle *handle, uint32_t index);
  void (*stop)(const lkfk_handle *handle);
  void (*write_line)(const char *text, size_t len, int32_t level);
} lkfk_api_1;
";

/// Declares the codes and the table of their texts.
macro_rules! codes {
    ($( $name:ident = $value:literal, $text:literal; )*) => {
        $( #[doc = $text] pub const $name: i32 = $value; )*

        /// Every code but [`OK`] with its text, as `log()` returns it.
        pub const CODES: &[(i32, &str)] = &[ $( ($value, $text), )* ];
    };
}

/// Done.
pub const OK: i32 = 0;
codes! {
    TOO_MANY_MESSAGES = -1, "queue full: queue_buffering_max_messages are waiting";
    NO_SPACE = -2, "queue full: queue_buffering_max_kbytes are in use";
    TOO_LARGE = -3, "message too large: key and payload exceed message_max_bytes";
    BAD_TOPIC_ID = -4, "no such topic id";
    BAD_TOPIC = -5, "not a valid topic name: 1 to 249 of a-z A-Z 0-9 . _ - are allowed";
    TOO_MANY_TOPICS = -6, "too many topics for one queue";
    TOPIC_UNKNOWN = -7, "topic unknown: it is not in the topics of the configuration";
    CLOSED = -8, "the worker is exiting";
    FAULT = -9, "internal fault";
}

/// Runs `body`; a panic becomes [`FAULT`].
fn guard(body: impl FnOnce() -> i32) -> i32 {
    // What a panic may leave half-done is checked by the reader before it is believed.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(FAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C names of the fields, in order, must be those of the Rust struct; LuaJIT checks the rest when
    /// the specs run.
    #[test]
    fn declarations_name_the_fields_in_order_and_the_abi() {
        let offsets = [
            ("abi;", std::mem::offset_of!(Api, abi)),
            ("size;", std::mem::offset_of!(Api, size)),
            ("*handle;", std::mem::offset_of!(Api, handle)),
            ("(*push)", std::mem::offset_of!(Api, push)),
            ("(*topic)", std::mem::offset_of!(Api, topic)),
            ("(*next_line)", std::mem::offset_of!(Api, next_line)),
            ("(*stat)", std::mem::offset_of!(Api, stat)),
            ("(*stop)", std::mem::offset_of!(Api, stop)),
            ("(*write_line)", std::mem::offset_of!(Api, write_line)),
        ];
        let body = &CDEF[CDEF.find("typedef struct {").unwrap()..];
        let places: Vec<usize> = offsets.iter().map(|(name, _)| body.find(name).unwrap()).collect();
        assert!(places.is_sorted() && offsets.iter().map(|(_, offset)| offset).is_sorted());
        assert_eq!(body.matches(';').count(), offsets.len() + 1);
        assert!(body.contains(&format!("lkfk_api_{ABI};")));
    }

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guard(|| panic!("on purpose")), FAULT);
    }

    #[test]
    fn codes_are_negative_and_distinct() {
        let mut seen: Vec<i32> = CODES.iter().map(|(code, _)| *code).collect();
        assert!(seen.iter().all(|code| *code < 0));
        seen.dedup();
        assert_eq!(seen.len(), CODES.len());
    }
}
