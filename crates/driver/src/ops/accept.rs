//! Ops that accept connections on a listening socket.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, Movable, NO_FILE, Operation};
use crate::syscalls::{check, retry};

const CREATED: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
const OPCODE: super::operation::Opcode = ("accept", opcode::Accept::CODE);

/// Accept connections until cancelled. Each connection is one completion with [`crate::Flags::MORE`], whose result is
/// the new fd, non-blocking and close-on-exec. An error of one connection (accept(2), "Error handling"; `EPERM`) is
/// skipped, unless such errors never end. `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` end the op with a completion,
/// never at its submission; it may be submitted again when there is room.
#[derive(Clone, Copy, Debug)]
pub struct AcceptMulti {
    pub fd: RawFd,
}

/// Accept one connection.
#[derive(Clone, Copy, Debug)]
pub struct Accept {
    pub fd: RawFd,
}

fn accept(fd: RawFd, calls: &mut u64) -> i32 {
    retry(calls, || {
        // SAFETY: null pointers: the call writes no address.
        check(i64::from(unsafe {
            libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), CREATED)
        }))
    })
}

impl Operation for AcceptMulti {
    const FACTS: Facts = Facts {
        movable: Movable::WhileInert,
        makes_fd: true,
        ..Facts::new("accept_multi", OPCODE)
    };

    const SAMPLE: Self = AcceptMulti { fd: NO_FILE };

    fn course(&self) -> Course {
        Course::AcceptMulti(self.fd)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::AcceptMulti::new(types::Fd(self.fd))
            .flags(CREATED)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        accept(self.fd, calls)
    }
}

impl Operation for Accept {
    const FACTS: Facts = Facts {
        movable: Movable::WhileInert,
        makes_fd: true,
        ..Facts::new("accept", OPCODE)
    };

    const SAMPLE: Self = Accept { fd: NO_FILE };

    fn course(&self) -> Course {
        Course::Once(self.fd, Direction::Read)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Accept::new(types::Fd(self.fd), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(CREATED)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        accept(self.fd, calls)
    }
}

/// How many connections in a row may fail before an accept gives up. Errors that never end do not come from single
/// connections, and skipping them would keep the loop busy for ever.
pub(crate) const FAILURES: u8 = 64;

/// Whether the error belongs to the one connection that was next: it died before it was accepted, or a firewall
/// forbids it (accept(2), "Error handling" and `EPERM`).
pub(crate) fn is_transient(error: i32) -> bool {
    matches!(
        -error,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM
            | libc::EINTR
    )
}

/// Whether the error says that the process or the system has no fd or no memory for a connection now.
pub(crate) fn is_exhaustion(error: i32) -> bool {
    matches!(-error, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}
