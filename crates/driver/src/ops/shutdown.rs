//! The op that shuts a socket down.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation};
use crate::syscalls::check;

/// Shut down one or both directions of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    pub fd: RawFd,
    pub how: i32,
}

impl Operation for Shutdown {
    const FACTS: Facts = Facts {
        punted: true,
        ..Facts::new("shutdown", ("shutdown", opcode::Shutdown::CODE))
    };

    const SAMPLE: Self = Shutdown {
        fd: NO_FILE,
        how: libc::SHUT_WR,
    };

    fn course(&self) -> Course {
        Course::Immediate(self.fd)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Shutdown::new(types::Fd(self.fd), self.how).build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        // SAFETY: the call takes no memory.
        check(i64::from(unsafe { libc::shutdown(self.fd, self.how) }))
    }
}
