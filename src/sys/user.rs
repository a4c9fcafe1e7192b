//! The user that this process runs as, for what an operator is told.

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Bytes for what the system knows of a user.
const ENTRY_BYTES: usize = 16 * 1024;

/// The name of this process's user, or the number of one that has no name.
pub(crate) fn name() -> String {
    name_of(rustix::process::geteuid().as_raw())
}

fn name_of(user: u32) -> String {
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut text = vec![0; ENTRY_BYTES];
    let mut found = std::ptr::null_mut();
    let (at, into) = (entry.as_mut_ptr(), text.as_mut_ptr());
    // SAFETY: all are live for the call, which writes no more bytes of text than it is told there are.
    let code = unsafe { libc::getpwuid_r(user, at, into, text.len(), &mut found) };
    if code != 0 || found.is_null() {
        return user.to_string();
    }
    // SAFETY: it was found, so the entry is whole, and its name is a C string in `text`.
    let name = unsafe { CStr::from_ptr((*found).pw_name) };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_18_a_user_is_named_and_one_without_a_name_is_a_number() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(3_999_999_999), "3999999999");
    }
}
