//! Ops that wait for the readiness of an fd and move no bytes.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, Movable, NO_FILE, Operation};
use crate::syscalls::poll_now;

pub(crate) const OPCODE: super::operation::Opcode = ("poll_add", opcode::PollAdd::CODE);

/// Wait once until the fd has `events` (`POLLIN` or `POLLOUT`, not both). The result is the events that it has, which
/// may include `POLLERR` and `POLLHUP`, or be only these.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    pub fd: RawFd,
    pub events: u32,
}

/// Added to the events of a [`PollMulti`]: it need only tell when something has come, which costs a ring less. It may
/// tell more often.
pub const EDGES: u32 = libc::EPOLLET as u32;

/// Like [`Poll`], but level triggered until cancelled: at most one completion with [`crate::Flags::MORE`] per wait
/// while the fd is ready.
#[derive(Clone, Copy, Debug)]
pub struct PollMulti {
    pub fd: RawFd,
    pub events: u32,
}

fn direction(events: u32) -> Direction {
    if events & libc::POLLOUT as u32 != 0 && events & libc::POLLIN as u32 == 0 {
        Direction::Write
    } else {
        Direction::Read
    }
}

impl Operation for Poll {
    const FACTS: Facts = Facts {
        movable: Movable::Always,
        ..Facts::new("poll", OPCODE)
    };

    const SAMPLE: Self = Poll {
        fd: NO_FILE,
        events: 1,
    };

    fn course(&self) -> Course {
        Course::Watch(self.fd, direction(self.events))
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::PollAdd::new(types::Fd(self.fd), self.events).build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        poll_now(self.fd, self.events)
    }
}

impl Operation for PollMulti {
    const FACTS: Facts = Facts {
        movable: Movable::Always,
        ..Facts::new("poll_multi", OPCODE)
    };

    const SAMPLE: Self = PollMulti {
        fd: NO_FILE,
        events: 1,
    };

    fn course(&self) -> Course {
        Course::WatchMulti(self.fd, direction(self.events))
    }

    /// An entry for one event, unless edges are enough: the kernel's multishot poll is edge triggered. The engine
    /// submits the op again after a completion that ends the entry.
    fn entry(&self, _group: u16) -> Entry {
        opcode::PollAdd::new(types::Fd(self.fd), self.events & !EDGES)
            .multi(self.events & EDGES != 0)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        poll_now(self.fd, self.events & !EDGES)
    }
}
