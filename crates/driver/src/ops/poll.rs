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
///
/// A result of `POLLIN` and nothing else then says that nothing but bytes has come since the poll told last. A receive
/// from a TCP socket that gets less than it has room for has got all of them, if the poll has told once since the last
/// receive (epoll(7), "Questions and answers", 9). Any other result may hide an end, an error or the mark of urgent
/// data behind these bytes.
pub const EDGES: u32 = libc::EPOLLET as u32;

/// What a poll for edges asks for besides bytes, so that its result says whether there are only bytes.
pub(crate) const NOT_ONLY_BYTES: u32 = (libc::POLLRDHUP | libc::POLLPRI) as u32;

const BYTES: u32 = libc::POLLIN as u32;

/// What the kernel says of a single wake-up without looking at the socket, when it has received bytes (`sock_def_readable`
/// in net/core/sock.c). After several wake-ups, and if it was woken by anything else, it looks (`io_poll_check_events` in
/// io_uring/poll.c); TCP then never says `POLLRDBAND`, and wakes twice for urgent bytes.
const WOKEN: u32 = (libc::POLLIN | libc::POLLPRI | libc::POLLRDBAND) as u32;

impl PollMulti {
    /// The result of a poll for edges, from the kernel's. `looks`: the kernel looks as said above, since Linux 5.17.
    pub(crate) fn told(self, result: i32, looks: bool) -> i32 {
        let seen = result as u32;
        if self.events & EDGES == 0 || self.events & BYTES == 0 {
            return result;
        }
        if looks && (seen == BYTES || seen == WOKEN) {
            return BYTES as i32;
        }
        (seen | NOT_ONLY_BYTES) as i32
    }
}

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
        events: 1 | EDGES,
    };

    fn course(&self) -> Course {
        Course::WatchMulti(self.fd, direction(self.events))
    }

    /// An entry for one event, unless edges are enough: the kernel's multishot poll is edge triggered. The engine
    /// submits the op again after a completion that ends the entry.
    fn entry(&self, _group: u16) -> Entry {
        let edges = self.events & EDGES != 0;
        let events = match self.events & !EDGES {
            events if edges && events & BYTES != 0 => events | NOT_ONLY_BYTES | WOKEN,
            events => events,
        };
        opcode::PollAdd::new(types::Fd(self.fd), events)
            .multi(edges)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        *calls += 1;
        poll_now(self.fd, self.events & !EDGES)
    }
}
