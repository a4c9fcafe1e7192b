//! The bell: a unix socket by which the driver wakes Lua on nginx's event loop.
//!
//! The driver never calls Lua. It leaves log lines and work for callbacks where Lua looks for them, and rings. A light
//! thread that reads from the other end of the socket wakes within a millisecond, tells the bell that it has
//! [heard](Bell::heard) it, and looks. Between two looks one byte is in flight, however often the bell is rung.
//!
//! - There is one bell in a process, for all its producers; it listens once Lua asks for its path.
//! - Only this process may listen to it. It takes connections when it rings, so that it needs no thread: what was left
//!   before is found by whoever connects and looks first.
//! - A light thread that reads holds nginx's graceful exit up. So the bell is [closed](Bell::close) once the worker leaves
//!   and nobody waits for it any more, after which nobody hears it; callers find what was left by a timer.
//! - Its file lies in the directory of the queue files, and is removed when it is closed. That of a worker that was killed
//!   is removed by the next one.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with, sockopt};
use rustix::process::{Pid, getpid, test_kill_process};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// What bells' files are named: this, the process id, a moment, and [`UNFINISHED`] while nobody listens yet.
const PREFIX: &str = ".bell-";
const UNFINISHED: &str = "~";
/// An unfinished file is a moment's; one that has lasted for so long is a dead worker's.
const UNFINISHED_FOR: Duration = Duration::from_secs(60);
/// Longest path of a socket: `sun_path` has 108 bytes, with a zero at the end.
const LONGEST_PATH: usize = 107;
/// Light threads that may listen: one in each Lua VM that serves producers. A later one takes the place of the first.
const LISTENERS: usize = 4;
/// Connections that are looked at when the bell rings, strangers' included.
const CONNECTIONS_A_RING: usize = 16;

/// Why there is no bell.
#[derive(Debug, thiserror::Error)]
pub enum BellError {
    /// nginx is shutting the worker down.
    #[error("the worker is exiting")]
    Closed,
    /// A socket's path has few bytes.
    #[error("the path {} is longer than {LONGEST_PATH} bytes; choose a shorter queue_path", .0.display())]
    PathTooLong(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {error}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

#[derive(Debug, Default)]
struct State {
    listener: Option<Listening>,
    streams: Vec<UnixStream>,
    /// A byte is in flight, or was read and is not heard yet.
    rung: bool,
    closed: bool,
}

#[derive(Debug)]
struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

/// The bell of a process.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<State>,
}

/// The bell of this process; it is made for the first who asks, and dropped with the last.
pub fn of_process() -> Arc<Bell> {
    static BELL: Mutex<Weak<Bell>> = Mutex::new(Weak::new());
    let mut bell = BELL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    bell.upgrade().unwrap_or_else(|| {
        let made = Arc::new(Bell::default());
        *bell = Arc::downgrade(&made);
        made
    })
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was locked leaves sockets, each of which is open or closed.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Listens in `dir`, if it does not listen already, and returns the path to connect to. `unique` tells its file
    /// from any other of this process id.
    pub fn listen(&self, dir: &Path, unique: u64) -> Result<PathBuf, BellError> {
        let mut state = self.state();
        if state.closed {
            return Err(BellError::Closed);
        }
        if let Some(Listening { path, .. }) = &state.listener {
            return Ok(path.clone());
        }
        remove_dead(dir);
        let path = dir.join(format!("{PREFIX}{}-{unique:x}", std::process::id()));
        let listener = listen_at(&path)?;
        state.listener = Some(Listening { listener, path: path.clone() });
        Ok(path)
    }

    /// Wakes who listens. Cheap when that was done and not [heard](Self::heard) yet; never blocks.
    pub fn ring(&self) {
        let mut state = self.state();
        if state.rung {
            return;
        }
        state.take_connections();
        state.streams.retain(ring_one);
        state.rung = !state.streams.is_empty();
    }

    /// Says that the ring was heard, by who looks at what was left right after: from now on there may be another.
    pub fn heard(&self) {
        self.state().rung = false;
    }

    /// Ends it for good: who listens reads the end, and the file goes.
    pub fn close(&self) {
        let mut state = self.state();
        // One that was not taken would be told of an error instead of the end.
        state.take_connections();
        *state = State { closed: true, ..State::default() };
    }
}

impl State {
    fn take_connections(&mut self) {
        let Some(Listening { listener, .. }) = &self.listener else { return };
        for _ in 0..CONNECTIONS_A_RING {
            let Ok((stream, _)) = listener.accept() else { return };
            if is_own(&stream) && stream.set_nonblocking(true).is_ok() {
                self.streams.retain(is_open);
                if self.streams.len() == LISTENERS {
                    self.streams.remove(0);
                }
                self.streams.push(stream);
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Where it cannot be removed the next worker does it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens under another name first: whoever sweeps up takes a socket that refuses connections for a dead worker's.
fn listen_at(path: &Path) -> Result<UnixListener, BellError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    if unfinished.as_bytes().len() > LONGEST_PATH {
        return Err(BellError::PathTooLong(path.to_owned()));
    }
    let made = UnixListener::bind(&unfinished).and_then(|listener| {
        let finished = listener.set_nonblocking(true).and_then(|()| fs::rename(&unfinished, path));
        if finished.is_err() {
            // Nobody has its name.
            let _ = fs::remove_file(&unfinished);
        }
        finished.map(|()| listener)
    });
    made.map_err(|error| BellError::System { path: path.to_owned(), error })
}

/// True when the other end is this process.
fn is_own(stream: &UnixStream) -> bool {
    sockopt::socket_peercred(stream).is_ok_and(|peer| peer.pid == getpid())
}

/// Sends the byte; false when nobody is there any more. A full socket has a byte that nobody has read, which is enough.
fn ring_one(stream: &UnixStream) -> bool {
    let sent = send(stream, b"!", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    matches!(sent, Ok(1) | Err(Errno::AGAIN | Errno::INTR))
}

/// False when the other end is closed. It never sends anything.
fn is_open(stream: &UnixStream) -> bool {
    let received = recv(stream, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(received, Ok((_, 0)))
}

/// Removes the files of bells that nobody listens to.
fn remove_dead(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if is_socket && is_dead(&entry) {
            // Another worker may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// True for the bell of a process that is neither among ours nor, in another container, at the other end of it.
fn is_dead(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
    let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?)) else { return false };
    if test_kill_process(pid) != Err(Errno::SRCH) {
        return false;
    }
    if name.as_bytes().ends_with(UNFINISHED.as_bytes()) {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
        return matches!(age, Ok(Ok(age)) if age > UNFINISHED_FOR);
    }
    is_refused(&entry.path())
}

/// True when nobody listens. One whose owner has not looked for long does not hold this up.
fn is_refused(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let connected = SocketAddrUnix::new(path).and_then(|at| connect(socket?, &at));
    connected == Err(Errno::CONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// No process has such a number.
    const NOBODY: i32 = 999_999_999;

    /// A directory of its own, and the bells in it.
    struct Scene(PathBuf);

    impl Scene {
        fn new() -> Scene {
            static SCENES: AtomicU64 = AtomicU64::new(0);
            let number = SCENES.fetch_add(1, Ordering::Relaxed);
            let name = format!("lkfk-bell-{}-{number}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            Scene(dir)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }

        fn bell(&self) -> (Bell, PathBuf) {
            let bell = Bell::default();
            let path = bell.listen(&self.0, 1).unwrap();
            (bell, path)
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn connect(path: &Path) -> UnixStream {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Bytes that have come; `None` at the end.
    fn come(stream: &mut UnixStream) -> Option<usize> {
        let mut bytes = [0; 16];
        match stream.read(&mut bytes) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn one_byte_is_in_flight_until_it_was_heard() {
        let scene = Scene::new();
        let (bell, path) = scene.bell();
        bell.ring();
        let mut stream = connect(&path);
        assert_eq!(come(&mut stream), Some(0), "rung before anybody listened");
        (0..1000).for_each(|_| bell.ring());
        assert_eq!(come(&mut stream), Some(1));
        bell.ring();
        assert_eq!(come(&mut stream), Some(0), "not heard yet");
        bell.heard();
        bell.ring();
        assert_eq!(come(&mut stream), Some(1));
    }

    #[test]
    fn each_of_several_listeners_hears_it_and_one_that_went_holds_up_nobody() {
        let scene = Scene::new();
        let (bell, path) = scene.bell();
        let (mut a, b) = (connect(&path), connect(&path));
        bell.ring();
        drop(b);
        let mut c = connect(&path);
        for _ in 0..3 {
            bell.heard();
            bell.ring();
        }
        assert!(come(&mut a).unwrap() >= 1);
        assert_eq!(come(&mut c), Some(3));
        drop((a, c));
        bell.heard();
        bell.ring();
        // Nobody is there, so that the next who comes is not left waiting.
        let mut d = connect(&path);
        bell.ring();
        assert_eq!(come(&mut d), Some(1));
    }

    #[test]
    fn the_last_listeners_are_heard_when_there_are_more_than_may_be() {
        let scene = Scene::new();
        let (bell, path) = scene.bell();
        let mut streams: Vec<_> = (0..=LISTENERS).map(|_| connect(&path)).collect();
        bell.ring();
        assert_eq!(come(&mut streams[0]), None);
        assert!(streams[1..].iter_mut().all(|stream| come(stream) == Some(1)));
    }

    #[test]
    fn the_end_is_read_also_by_a_connection_that_was_never_rung_and_the_file_goes() {
        let scene = Scene::new();
        let (bell, path) = scene.bell();
        let mut early = connect(&path);
        bell.ring();
        let mut late = connect(&path);
        assert_eq!(scene.files(), 1);
        bell.close();
        assert_eq!((come(&mut early), come(&mut early)), (Some(1), None));
        assert_eq!(come(&mut late), None);
        assert_eq!(scene.files(), 0);
        bell.ring();
        assert!(matches!(bell.listen(&scene.0, 2), Err(BellError::Closed)));
    }

    #[test]
    fn a_bell_has_one_path_and_the_file_of_a_dead_one_is_removed_and_no_other() {
        let scene = Scene::new();
        let (bell, path) = scene.bell();
        assert_eq!(bell.listen(&scene.0, 2).unwrap(), path);
        let place = |name: &str| scene.0.join(name);
        // What a worker leaves that was killed, and one that is about to listen.
        let dead = place(&format!(".bell-{NOBODY}-1"));
        let beginning = place(&format!(".bell-{NOBODY}-2~"));
        drop(UnixListener::bind(&dead).unwrap());
        drop(UnixListener::bind(&beginning).unwrap());
        // In another container, whose numbers are not ours.
        let elsewhere = place(&format!(".bell-{NOBODY}-3"));
        let _listens = UnixListener::bind(&elsewhere).unwrap();
        fs::write(place(".bell-999999999-4"), "").unwrap();
        let other = Bell::default();
        other.listen(&scene.0, 3).unwrap();
        assert!(!dead.exists());
        assert!(beginning.exists() && elsewhere.exists());
        assert!(place(".bell-999999999-4").exists(), "it is no socket");
        let mut stream = connect(&path);
        bell.ring();
        assert_eq!(come(&mut stream), Some(1), "the living one is rung");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let scene = Scene::new();
        let dir = scene.0.join("x".repeat(90));
        let error = Bell::default().listen(&dir, 1).unwrap_err().to_string();
        assert!(
            error.ends_with("is longer than 107 bytes; choose a shorter queue_path"),
            "{error}"
        );
    }
}
