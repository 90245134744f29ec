//! The op that moves bytes between two fds inside the kernel.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, NO_FILE, Operation};
use crate::syscalls::{AGAIN, check, poll_now, retry};

/// Move bytes between two fds, one of which is a pipe. An offset of -1 means the current position.
#[derive(Clone, Copy, Debug)]
pub struct Splice {
    pub from: RawFd,
    pub from_offset: i64,
    pub to: RawFd,
    pub to_offset: i64,
    pub len: u32,
    pub flags: u32,
}

/// The side that a splice has to wait for: the first that is not ready, or `None`. Makes at most two system calls.
pub(crate) fn waits_on(from: RawFd, to: RawFd) -> Option<(RawFd, Direction)> {
    if poll_now(from, libc::POLLIN as u32) == AGAIN {
        Some((from, Direction::Read))
    } else if poll_now(to, libc::POLLOUT as u32) == AGAIN {
        Some((to, Direction::Write))
    } else {
        None
    }
}

impl Operation for Splice {
    const FACTS: Facts = Facts {
        punted: true,
        ..Facts::new("splice", ("splice", opcode::Splice::CODE))
    };

    const SAMPLE: Self = Splice {
        from: NO_FILE,
        from_offset: -1,
        to: NO_FILE,
        to_offset: -1,
        len: 1,
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Splice {
            from: self.from,
            to: self.to,
        }
    }

    fn entry(&self, _group: u16) -> Entry {
        let (from, to) = (types::Fd(self.from), types::Fd(self.to));
        opcode::Splice::new(from, self.from_offset, to, self.to_offset, self.len)
            .flags(self.flags)
            .build()
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    /// Waits for a disk, but not for a pipe or socket: if one is not ready, the answer is [`AGAIN`].
    unsafe fn block(&self) -> i32 {
        if waits_on(self.from, self.to).is_some() {
            return AGAIN;
        }
        let flags = self.flags | libc::SPLICE_F_NONBLOCK;
        let (mut from_offset, mut to_offset) = (self.from_offset, self.to_offset);
        let from_offset = pointer(&mut from_offset);
        let to_offset = pointer(&mut to_offset);
        retry(&mut 0, || {
            // SAFETY: the offsets are local.
            check(unsafe {
                libc::splice(
                    self.from,
                    from_offset,
                    self.to,
                    to_offset,
                    self.len as usize,
                    flags,
                )
            } as i64)
        })
    }
}

/// An offset in the form of splice(2): null means the current position.
fn pointer(offset: &mut i64) -> *mut i64 {
    if *offset < 0 { std::ptr::null_mut() } else { offset }
}
