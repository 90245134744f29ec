//! The op that closes an fd.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation};
use crate::syscalls::check;

/// Close an fd. The engine cancels the ops of this fd that are in flight, and closes the fd once all of them have
/// ended: the kernel never reuses the number while an op uses it.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    pub fd: RawFd,
}

impl Operation for Close {
    const FACTS: Facts = Facts::new("close", ("close", opcode::Close::CODE));

    const SAMPLE: Self = Close { fd: NO_FILE };

    fn course(&self) -> Course {
        Course::Close(self.fd)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Close::new(types::Fd(self.fd)).build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        // SAFETY: the submitter owns the fd. The call is not repeated: on Linux the fd is closed even when a signal
        // interrupts close (close(2), "Dealing with error returns").
        match check(i64::from(unsafe { libc::close(self.fd) })) {
            interrupted if interrupted == -libc::EINTR => 0,
            result => result,
        }
    }
}
