//! What an op says of itself, and how engines read it.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;

/// Which readiness of its fd an op waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The event of `poll(2)`.
    pub fn event(self) -> u32 {
        match self {
            Direction::Read => libc::POLLIN as u32,
            Direction::Write => libc::POLLOUT as u32,
        }
    }
}

/// How an op gets from its submission to its result. Engines decide by this, and never by which op it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It is attempted, again each time that its fd is ready, until an attempt has a result.
    Once(RawFd, Direction),
    /// As `Once`, but the fd may be a regular file, which knows no readiness. Then a pool thread carries it out.
    File(RawFd, Direction),
    /// The attempt only begins it (`-EINPROGRESS`). Once the fd is writable, `SO_ERROR` is the result.
    Connect(RawFd),
    /// Readiness is the result.
    Watch(RawFd, Direction),
    /// Readiness is a result each time, until it is cancelled.
    WatchMulti(RawFd, Direction),
    /// Each attempt may make a connection. Only some errors end it.
    AcceptMulti(RawFd),
    /// Each attempt receives into a buffer of the engine's. The end of the stream and errors end it.
    RecvMulti(RawFd),
    /// A pool thread carries it out when both fds are ready.
    Splice { from: RawFd, to: RawFd },
    /// A pool thread carries it out: it may wait for a disk. It uses these fds, -1 for none.
    Blocking([RawFd; 2]),
    /// One system call, which never waits.
    Immediate(RawFd),
    /// It is carried out once no op in flight uses the fd.
    Close(RawFd),
}

impl Course {
    /// The fd whose readiness it waits for; `None` for what a single readiness does not let go on.
    pub(crate) fn waits_on(self) -> Option<(RawFd, Direction)> {
        match self {
            Course::Once(fd, direction)
            | Course::File(fd, direction)
            | Course::Watch(fd, direction)
            | Course::WatchMulti(fd, direction) => Some((fd, direction)),
            Course::AcceptMulti(fd) | Course::RecvMulti(fd) => Some((fd, Direction::Read)),
            Course::Connect(fd) => Some((fd, Direction::Write)),
            Course::Splice { .. } | Course::Blocking(_) | Course::Immediate(_) | Course::Close(_) => None,
        }
    }

    /// The fds that the op uses, which must not be closed under it; -1 for none. A close uses none: that its fd is in use
    /// is what it waits for.
    pub(crate) fn uses(self) -> [RawFd; 2] {
        match self {
            Course::Once(fd, _)
            | Course::File(fd, _)
            | Course::Connect(fd)
            | Course::Watch(fd, _)
            | Course::WatchMulti(fd, _)
            | Course::AcceptMulti(fd)
            | Course::RecvMulti(fd)
            | Course::Immediate(fd) => [fd, -1],
            Course::Splice { from, to } => [from, if to == from { -1 } else { to }],
            Course::Blocking(fds) => fds,
            Course::Close(_) => [-1, -1],
        }
    }

    /// What replaces its opcode on a ring that may not use it.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Course::Immediate(_) | Course::Close(_) => "by its system call",
            Course::Blocking(_) | Course::Splice { .. } => "by a pool of threads",
            Course::Once(..)
            | Course::File(..)
            | Course::Connect(_)
            | Course::Watch(..)
            | Course::WatchMulti(..)
            | Course::AcceptMulti(_)
            | Course::RecvMulti(_) => "by a poll on the ring and its system call",
        }
    }
}

/// Whether an op in flight may be dropped with one ring and submitted to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Movable {
    /// It may have begun, in memory of the submitter's.
    Never,
    /// Not while the old ring may still carry it out: what it takes then would be lost.
    WhileInert,
    /// It takes nothing.
    Always,
}

/// An opcode of `io_uring_enter(2)`, under the name that restrictions and `PROACT_URING_DENY` know it by.
pub(crate) type Opcode = (&'static str, u8);

/// The fd of a sample: a number that no process has open. Negative numbers are answered in other ways than `EBADF`.
pub(super) const NO_FILE: RawFd = RawFd::MAX;

/// What is true of every op of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Its name in statistics.
    pub(crate) name: &'static str,
    pub(crate) opcode: Opcode,
    pub(crate) movable: Movable,
    /// The kernel hands it to a worker thread before it looks at its arguments.
    pub(crate) punted: bool,
    /// Its result is a new fd, which is to be closed where nobody takes the result.
    pub(crate) makes_fd: bool,
}

impl Facts {
    pub(super) const fn new(name: &'static str, opcode: Opcode) -> Facts {
        Facts {
            name,
            opcode,
            movable: Movable::Never,
            punted: false,
            makes_fd: false,
        }
    }
}

/// What an op has to say of itself.
pub(crate) trait Operation: Copy {
    const FACTS: Facts;

    /// One that can't succeed. The kernel's answer to it tells whether the opcode may be used.
    const SAMPLE: Self;

    fn course(&self) -> Course;

    /// Its submission queue entry; `group` is the group of the buffers that it may receive into. Offsets of -1 mean the
    /// current position, as in the kernel's interface.
    fn entry(&self, group: u16) -> Entry;

    /// Tries it once without blocking: its result, or [`crate::syscalls::AGAIN`]. Adds the system calls to `calls`.
    ///
    /// # Safety
    /// What the op points at is valid, as `Driver::submit` demands.
    unsafe fn attempt(&self, calls: &mut u64) -> i32;

    /// Carries it out on a thread that may wait for a disk. A course that ends in the pool has one of its own.
    ///
    /// # Safety
    /// As [`Operation::attempt`].
    unsafe fn block(&self) -> i32 {
        // SAFETY: passed on.
        unsafe { self.attempt(&mut 0) }
    }
}

/// An entry's length has 32 bits. A longer transfer is short, as it may always be.
pub(super) fn clamp(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}
