//! The full fence that both sides of a wake-up need, at the reader's expense where the kernel allows it.
//!
//! The writer publishes and then looks whether it must wake the reader; the reader says that it sleeps and
//! then looks for records. A full fence between the two acts of each side makes sure that one of them sees
//! the other. On the writer's side that fence is paid for with every record, and dearly: it waits until the
//! record's bytes have left the store buffer. With `membarrier(2)` the reader, before it sleeps, makes the
//! kernel run that fence on the processors of the process's other threads, and the writer only has to keep
//! the compiler from reordering. Both must be threads of one process.

#[cfg(loom)]
use loom::sync::atomic::{Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{Ordering, compiler_fence, fence};

#[cfg(not(loom))]
use rustix::thread::{MembarrierCommand, membarrier};

/// How writer and reader of a queue in this process fence against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// The reader fences for both, through the kernel.
    #[cfg(not(loom))]
    Asymmetric,
    /// Each side fences for itself.
    Symmetric,
}

impl Barrier {
    /// What this kernel, and the sandbox we are in, offer. Both ends of a queue must use the same answer.
    #[cfg(not(loom))]
    pub fn detect() -> Barrier {
        match membarrier(MembarrierCommand::RegisterPrivateExpedited) {
            Ok(()) => Barrier::Asymmetric,
            Err(_) => Barrier::Symmetric,
        }
    }

    /// Writer: between publishing and looking at the wake words.
    #[inline]
    pub fn writer_side(self) {
        match self {
            #[cfg(not(loom))]
            Barrier::Asymmetric => compiler_fence(Ordering::SeqCst),
            Barrier::Symmetric => fence(Ordering::SeqCst),
        }
    }

    /// Reader: between writing the wake words and looking at the tail.
    pub fn reader_side(self) {
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if self == Barrier::Asymmetric {
            membarrier(MembarrierCommand::PrivateExpedited)
                .expect("registered when the barrier was chosen");
        }
    }
}
