//! What lkfk knows of the nginx process around it: variables of nginx's, and what its master has said or set up.
//!
//! Everything here looks and changes nothing that nginx would notice. A program that is not nginx has none of the
//! variables, and every question has an answer there, too.

pub mod affinity;
pub mod cycle;
pub mod error_log;
pub mod termination;

use std::ffi::CStr;

/// The value of one of nginx's global variables; `None` where there is no nginx.
///
/// # Safety
/// A variable of that name is of nginx's, has the size and alignment of a `T`, and any bytes are a `T`.
unsafe fn variable<T>(name: &CStr) -> Option<T> {
    // SAFETY: the name is a C string; looking it up has no effect.
    let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: the caller answers for the type, and a program's global variables live as long as its process.
    (!at.is_null()).then(|| unsafe { at.cast::<T>().read_volatile() })
}
