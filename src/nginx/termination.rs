//! Whether nginx was told to end this worker at once, while its only thread waits for ours and cannot look itself.
//!
//! Two ways lead to that. A signal sets `ngx_terminate`. nginx's master, though, writes a command into the worker's
//! channel, which would be read after we are done: so it is looked at there, and left for nginx.
//!
//! Any number of commands may wait before that one, some of which carry descriptors (each new worker's channel is
//! announced like that). A read ends at such a command, and a look that does not move would see the first ones for
//! ever. So the kernel is asked to move on behind what was looked at, which it does without taking anything out of
//! the socket (`SO_PEEK_OFF`), until there is no more.

use super::variable;

/// Number of the command, in `ngx_process_cycle.h`.
const CMD_TERMINATE: usize = 4;
const COMMAND_BYTES: usize = size_of::<Command>();

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
    // SAFETY: a `sig_atomic_t` and a descriptor, which are `int`.
    let (flag, channel) = unsafe {
        (variable::<libc::c_int>(c"ngx_terminate"), variable::<libc::c_int>(c"ngx_channel"))
    };
    flag.is_some_and(|flag| flag != 0) || channel.is_some_and(is_commanded)
}

/// Looks at all commands that wait in a channel. A descriptor that nginx has closed is an error, and from whatever
/// socket it may have become nothing is taken.
fn is_commanded(channel: libc::c_int) -> bool {
    if !peek_from(channel, 0) {
        return false;
    }
    // The socket's buffer bounds how many there are, since nobody takes one out meanwhile.
    let found = std::iter::from_fn(|| next_command(channel)).any(|number| number == CMD_TERMINATE);
    peek_from(channel, PEEK_AT_THE_FIRST);
    found
}

/// As a socket is that nobody has told otherwise.
const PEEK_AT_THE_FIRST: libc::c_int = -1;

/// Sets where the next look begins; false for what is no such socket.
fn peek_from(channel: libc::c_int, offset: libc::c_int) -> bool {
    let size = size_of_val(&offset) as libc::socklen_t;
    // SAFETY: reads the option's value, a live `int` of that size.
    let result = unsafe {
        libc::setsockopt(
            channel,
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const offset).cast(),
            size,
        )
    };
    result == 0
}

/// The number of the command that is looked at next; `None` when there is no whole one.
fn next_command(channel: libc::c_int) -> Option<usize> {
    let mut bytes = [0; COMMAND_BYTES];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: writes at most as many bytes as there are. Without room for them the kernel hands out no descriptors.
    let read = unsafe { libc::recv(channel, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    let number = bytes.first_chunk().expect("a command is longer than its first field");
    (read == COMMAND_BYTES as isize).then(|| usize::from_ne_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::{IoSlice, Read, Write};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;

    /// Numbers of commands, in `ngx_process_cycle.h`.
    const CMD_OPEN_CHANNEL: usize = 1;
    const CMD_QUIT: usize = 3;

    fn command(number: usize) -> [u8; COMMAND_BYTES] {
        let mut bytes = [0; COMMAND_BYTES];
        bytes[..size_of::<usize>()].copy_from_slice(&number.to_ne_bytes());
        bytes
    }

    /// As nginx's master tells a worker of a new one: with the descriptor of that one's channel.
    fn open_channel(master: &UnixStream) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut descriptors = SendAncillaryBuffer::new(&mut space);
        let with = [master.as_fd()];
        assert!(descriptors.push(SendAncillaryMessage::ScmRights(&with)));
        let bytes = command(CMD_OPEN_CHANNEL);
        let sent =
            sendmsg(master, &[IoSlice::new(&bytes)], &mut descriptors, SendFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }

    #[test]
    fn a_command_is_seen_behind_others_and_left_where_it_is() {
        let (mut master, mut worker) = UnixStream::pair().unwrap();
        let channel = worker.as_raw_fd();
        assert!(!is_commanded(channel) && !is_commanded(-1));
        for number in [2, CMD_QUIT, 5] {
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

    #[test]
    fn flt_03_a_command_is_seen_behind_one_that_carries_a_descriptor() {
        let (mut master, mut worker) = UnixStream::pair().unwrap();
        let channel = worker.as_raw_fd();
        open_channel(&master);
        open_channel(&master);
        assert!(!is_commanded(channel));
        master.write_all(&command(CMD_TERMINATE)).unwrap();
        assert!(is_commanded(channel));
        for number in [CMD_OPEN_CHANNEL, CMD_OPEN_CHANNEL, CMD_TERMINATE] {
            let mut next = command(0);
            worker.read_exact(&mut next).unwrap();
            assert_eq!(next, command(number), "nginx reads all of them as if nobody had looked");
        }
        assert!(!is_commanded(channel));
    }

    #[test]
    fn flt_03_a_command_is_seen_behind_more_than_a_hundred_others() {
        let (mut master, worker) = UnixStream::pair().unwrap();
        let channel = worker.as_raw_fd();
        for _ in 0..60 {
            open_channel(&master);
            master.write_all(&command(CMD_QUIT)).unwrap();
        }
        assert!(!is_commanded(channel));
        master.write_all(&command(CMD_TERMINATE)).unwrap();
        assert!(is_commanded(channel));
        assert!(is_commanded(channel), "also when it is asked again");
    }

    #[test]
    fn a_channel_that_the_master_closed_or_cut_in_a_command_says_nothing() {
        let (mut master, worker) = UnixStream::pair().unwrap();
        let channel = worker.as_raw_fd();
        master.write_all(&command(CMD_TERMINATE)[1..]).unwrap();
        assert!(!is_commanded(channel));
        drop(master);
        assert!(!is_commanded(channel));
    }
}
