//! Closing an fd.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation};
use crate::syscalls::check;

/// Close an fd. Ops of this fd that are in flight are cancelled, and the fd is closed once all of them have ended: its
/// number is never reused under an op.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    pub fd: RawFd,
}

impl Operation for Close {
    const FACTS: Facts = Facts::new(
        "close",
        ("close", opcode::Close::CODE)
    );

    const SAMPLE: Self = Close { fd: NO_FILE };

    fn course(&self) -> Course {
        Course::Close(self.fd)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Close::new(types::Fd(self.fd)).build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        // SAFETY: the fd is the submitter's to close. The call is not repeated: on Linux the fd is gone even when close
        // is interrupted (close(2), "Dealing with error returns").
        match check(i64::from(unsafe { libc::close(self.fd) })) {
            interrupted if interrupted == -libc::EINTR => 0,
            result => result,
        }
    }
}
