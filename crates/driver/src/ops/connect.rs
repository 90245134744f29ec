//! The op that connects a socket.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation};
use crate::syscalls::check;

/// Connect to an address.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    pub fd: RawFd,
    pub addr: *const libc::sockaddr,
    pub len: libc::socklen_t,
}

impl Operation for Connect {
    const FACTS: Facts = Facts::new("connect", ("connect", opcode::Connect::CODE));

    const SAMPLE: Self = Connect {
        fd: NO_FILE,
        addr: std::ptr::null(),
        len: 16,
    };

    fn course(&self) -> Course {
        Course::Connect(self.fd)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Connect::new(types::Fd(self.fd), self.addr, self.len).build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        // SAFETY: the submitter keeps the address valid.
        match check(i64::from(unsafe { libc::connect(self.fd, self.addr, self.len) })) {
            // A connect that a signal interrupts goes on in the kernel (connect(3p), `EINTR`); a second call would
            // return EALREADY.
            interrupted if interrupted == -libc::EINTR => -libc::EINPROGRESS,
            result => result,
        }
    }
}
