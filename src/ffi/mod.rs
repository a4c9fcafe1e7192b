//! The C ABI, for callers on nginx's thread: LuaJIT's FFI.
//!
//! Lua gets the address of [`API`], compares its version and calls through its pointers, so nothing is looked up by
//! name and nothing is loaded twice. The declarations Lua needs are [`CDEF`]. Every call names the producer that it
//! means by the address of its [`Handle`], which is never freed: once the producer is closed, each call says so.
//!
//! No function here unwinds or calls back. [`exit::lkfk_close`] and [`exit::lkfk_leave`] end producers and wait for that;
//! [`lines::lkfk_write_line`] writes to stderr, and [`lines::lkfk_next_line`] may wait for a mutex that the driver holds
//! while it puts a line in. What takes records asks the kernel for memory where a burst outruns the driver, and waits for
//! nothing else. Any lengths may be given, as long as the pointers hold that many bytes.

pub mod codes;
pub mod exit;
pub mod lines;
pub mod records;
pub mod stats;

use crate::worker::Handle;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Version of [`Api`]. Lua refuses to work with another.
pub const ABI: u32 = 2;

/// What Lua is given, by address. Lives as long as the process.
#[repr(C)]
pub struct Api {
    /// [`ABI`].
    pub abi: u32,
    /// Bytes of this struct.
    pub size: u32,
    /// See [`records::lkfk_push`].
    pub push: unsafe extern "C" fn(
        *const Handle,
        u32,
        i32,
        *const c_char,
        usize,
        *const c_char,
        usize,
    ) -> i32,
    /// See [`records::lkfk_push_record`].
    pub push_record: unsafe extern "C" fn(*const Handle, *const records::lkfk_record) -> i32,
    /// See [`records::lkfk_topic`].
    pub topic: unsafe extern "C" fn(*const Handle, *const c_char, usize) -> i32,
    /// See [`lines::lkfk_next_line`].
    pub next_line: unsafe extern "C" fn(*const Handle, *mut c_char, usize, *mut i32) -> i32,
    /// See [`lines::lkfk_write_line`].
    pub write_line: unsafe extern "C" fn(*const c_char, usize, i32),
    /// See [`stats::lkfk_stat`].
    pub stat: unsafe extern "C" fn(*const Handle, u32) -> u64,
    /// See [`exit::lkfk_close`].
    pub close: unsafe extern "C" fn(*const Handle),
    /// See [`exit::lkfk_leave`].
    pub leave: unsafe extern "C" fn(*const Handle) -> i32,
}

/// The functions.
pub static API: Api = Api {
    abi: ABI,
    size: size_of::<Api>() as u32,
    push: records::lkfk_push,
    push_record: records::lkfk_push_record,
    topic: records::lkfk_topic,
    next_line: lines::lkfk_next_line,
    write_line: lines::lkfk_write_line,
    stat: stats::lkfk_stat,
    close: exit::lkfk_close,
    leave: exit::lkfk_leave,
};

/// The declarations for `ffi.cdef`. A test holds them against [`Api`] and [`records::lkfk_record`].
pub const CDEF: &str = "
typedef struct lkfk_handle lkfk_handle;
typedef struct {
  uint32_t topic;
  int32_t partition;
  uint32_t flags;
  int64_t timestamp_ms;
  const char *key;
  size_t key_len;
  const char *headers;
  size_t headers_len;
  const char *payload;
  size_t payload_len;
} lkfk_record;
typedef struct {
  uint32_t abi;
  uint32_t size;
  int32_t (*push)(const lkfk_handle *handle, uint32_t topic, int32_t partition, const char *key,
                  size_t key_len, const char *payload, size_t payload_len);
  int32_t (*push_record)(const lkfk_handle *handle, const lkfk_record *record);
  int32_t (*topic)(const lkfk_handle *handle, const char *name, size_t name_len);
  int32_t (*next_line)(const lkfk_handle *handle, char *line, size_t size, int32_t *level);
  void (*write_line)(const char *text, size_t len, int32_t level);
  uint64_t (*stat)(const lkfk_handle *handle, uint32_t index);
  void (*close)(const lkfk_handle *handle);
  int32_t (*leave)(const lkfk_handle *handle);
} lkfk_api_2;
";

/// Runs `body`; a panic becomes [`FAULT`](codes::FAULT).
fn guard(body: impl FnOnce() -> i32) -> i32 {
    // What a panic may leave half-done is checked by the reader before it is believed.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(codes::FAULT)
}

#[cfg(test)]
mod tests {
    use super::records::lkfk_record;
    use super::*;
    use std::mem::offset_of;

    /// The C names of the fields, in order, must be those of the Rust struct; LuaJIT checks the rest when the specs run.
    fn check(declaration: &str, name: &str, fields: &[(&str, usize)]) {
        let body = &CDEF[..CDEF.find(&format!("}} {name};")).unwrap()];
        let body = &body[body.rfind("typedef struct {").unwrap()..];
        let places: Vec<usize> =
            fields.iter().map(|(field, _)| body.find(field).expect(field)).collect();
        assert!(places.is_sorted() && fields.iter().map(|(_, offset)| offset).is_sorted());
        assert_eq!(body.matches(';').count(), fields.len(), "{declaration}");
    }

    #[test]
    fn declarations_name_the_fields_in_order_and_the_abi() {
        let fields = [
            ("abi;", offset_of!(Api, abi)),
            ("size;", offset_of!(Api, size)),
            ("(*push)", offset_of!(Api, push)),
            ("(*push_record)", offset_of!(Api, push_record)),
            ("(*topic)", offset_of!(Api, topic)),
            ("(*next_line)", offset_of!(Api, next_line)),
            ("(*write_line)", offset_of!(Api, write_line)),
            ("(*stat)", offset_of!(Api, stat)),
            ("(*close)", offset_of!(Api, close)),
            ("(*leave)", offset_of!(Api, leave)),
        ];
        check("Api", &format!("lkfk_api_{ABI}"), &fields);
        let fields = [
            (" topic;", offset_of!(lkfk_record, topic)),
            (" partition;", offset_of!(lkfk_record, partition)),
            (" flags;", offset_of!(lkfk_record, flags)),
            (" timestamp_ms;", offset_of!(lkfk_record, timestamp_ms)),
            ("*key;", offset_of!(lkfk_record, key)),
            (" key_len;", offset_of!(lkfk_record, key_len)),
            ("*headers;", offset_of!(lkfk_record, headers)),
            (" headers_len;", offset_of!(lkfk_record, headers_len)),
            ("*payload;", offset_of!(lkfk_record, payload)),
            (" payload_len;", offset_of!(lkfk_record, payload_len)),
        ];
        check("lkfk_record", "lkfk_record", &fields);
    }

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guard(|| panic!("on purpose")), codes::FAULT);
    }
}
