//! Whether nginx was told to end this worker at once, while its only thread waits for ours and cannot look itself.
//!
//! Two ways lead to that. A signal sets `ngx_terminate`. nginx's master, though, writes a command into the worker's
//! channel, which would be read after we are done: so it is looked at there, and left for nginx.

use std::ffi::CStr;

/// Number of the command, in `ngx_process_cycle.h`.
const CMD_TERMINATE: usize = 4;
/// Commands that may wait before it.
const COMMANDS: usize = 32;

/// `ngx_channel_t`, whose first field is all that counts here.
#[repr(C)]
struct Command {
    command: usize,
    pid: libc::pid_t,
    slot: isize,
    fd: libc::c_int,
}

/// True once a signal or the master said so. Runs on nginx's thread; looks and changes nothing.
pub fn is_due() -> bool {
    number(c"ngx_terminate").is_some_and(|flag| flag != 0)
        || number(c"ngx_channel").is_some_and(is_commanded)
}

/// A number of nginx's; `None` where there is no nginx.
fn number(name: &CStr) -> Option<libc::c_int> {
    // SAFETY: the name is a C string; looking it up has no effect.
    let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: nginx's are a `sig_atomic_t` and a descriptor, which are `int`, and they live as
    // long as the process.
    (!at.is_null()).then(|| unsafe { at.cast::<libc::c_int>().read_volatile() })
}

fn is_commanded(channel: libc::c_int) -> bool {
    let mut bytes = [0; COMMANDS * size_of::<Command>()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: writes at most as many bytes as there are. A descriptor that nginx has closed is an error, and from
    // whatever socket it may have become nothing is taken.
    let read = unsafe { libc::recv(channel, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    let read = usize::try_from(read).unwrap_or(0);
    bytes[..read].chunks_exact(size_of::<Command>()).any(|command| {
        let number = command.first_chunk().expect("longer than its first field");
        usize::from_ne_bytes(*number) == CMD_TERMINATE
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn command(number: usize) -> [u8; size_of::<Command>()] {
        let mut bytes = [0; size_of::<Command>()];
        bytes[..size_of::<usize>()].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_command_is_seen_behind_others_and_left_where_it_is() {
        let (mut master, mut worker) = UnixStream::pair().unwrap();
        let channel = worker.as_raw_fd();
        assert!(!is_commanded(channel) && !is_commanded(-1));
        for number in [2, 3, 5] {
            master.write_all(&command(number)).unwrap();
            assert!(!is_commanded(channel), "{number}");
        }
        master.write_all(&command(CMD_TERMINATE)).unwrap();
        assert!(is_commanded(channel));
        let mut first = command(0);
        worker.read_exact(&mut first).unwrap();
        assert_eq!(first, command(2));
        assert!(!is_due(), "there is no nginx");
    }
}
