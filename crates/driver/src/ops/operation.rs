//! What an op declares about itself, and how engines read it.

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

/// How an op gets from its submission to its result. Engines decide by the course, never by the op itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// The engine attempts the op, and again each time that the fd is ready, until an attempt has a result.
    Once(RawFd, Direction),
    /// As `Once`, but the fd may be a regular file, which has no readiness. Then a pool thread carries the op out.
    File(RawFd, Direction),
    /// The attempt only begins the connect (`-EINPROGRESS`). Once the fd is writable, `SO_ERROR` is the result.
    Connect(RawFd),
    /// The fd's readiness is the result.
    Watch(RawFd, Direction),
    /// The fd's readiness is a result each time, until the op is cancelled.
    WatchMulti(RawFd, Direction),
    /// Each attempt may accept a connection. Only some errors end the op.
    AcceptMulti(RawFd),
    /// Each attempt receives into a buffer of the engine. The end of the stream and errors end the op.
    RecvMulti(RawFd),
    /// A pool thread carries the op out when both fds are ready.
    Splice { from: RawFd, to: RawFd },
    /// A pool thread carries the op out, because it may wait for a disk. The op uses these fds; -1 means none.
    Blocking([RawFd; 2]),
    /// One system call, which never waits.
    Immediate(RawFd),
    /// The engine carries the op out once no op in flight uses the fd.
    Close(RawFd),
}

impl Course {
    /// The fd and the readiness that let the op go on; `None` if no single readiness does.
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

    /// The fds that the op uses and that must not be closed meanwhile; -1 means none. A close uses none, because it
    /// waits until its fd is unused.
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

    /// How the op is done on a ring that may not use its opcode.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Course::Immediate(_) | Course::Close(_) => "by its system call",
            Course::Blocking(_) | Course::Splice { .. } => "by a pool of threads",
            Course::Once(..)
            | Course::File(..)
            | Course::Connect(_)
            | Course::Watch(..)
            | Course::AcceptMulti(_)
            | Course::RecvMulti(_) => "by a poll on the ring and its system call",
            Course::WatchMulti(..) => "by a poll for each event",
        }
    }
}

/// Whether an op in flight may be dropped with one ring and submitted to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Movable {
    /// The op may have begun to use memory of the submitter.
    Never,
    /// Only if the old ring can't carry it out any more: otherwise bytes or connections that the old ring takes would
    /// be lost.
    WhileInert,
    /// The op takes no bytes and no connections.
    Always,
}

/// An opcode of `io_uring_enter(2)`, with the name that restrictions and `PROACT_URING_DENY` use.
pub(crate) type Opcode = (&'static str, u8);

/// The fd of a sample: a number that no process has open. The kernel answers negative numbers with other errors than
/// `EBADF`.
pub(super) const NO_FILE: RawFd = RawFd::MAX;

/// What holds for every op of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The kind's name in statistics.
    pub(crate) name: &'static str,
    pub(crate) opcode: Opcode,
    pub(crate) movable: Movable,
    /// The kernel hands the op to a worker thread before it looks at the arguments.
    pub(crate) punted: bool,
    /// No opcode does all of the op, so a pool thread carries it out on a ring, too. `opcode` is that of a part.
    pub(crate) pooled: bool,
    /// The result is a new fd, which the engine has to close if it does not deliver the result.
    pub(crate) makes_fd: bool,
}

impl Facts {
    pub(super) const fn new(name: &'static str, opcode: Opcode) -> Facts {
        Facts {
            name,
            opcode,
            movable: Movable::Never,
            punted: false,
            pooled: false,
            makes_fd: false,
        }
    }
}

/// What an op has to declare about itself.
pub(crate) trait Operation: Copy {
    const FACTS: Facts;

    /// An op that can't succeed. The kernel's answer to it tells whether the opcode may be used.
    const SAMPLE: Self;

    fn course(&self) -> Course;

    /// The op's submission queue entry. `group` is the buffer group that the op may receive into. An offset of -1
    /// means the current position, as in the kernel's interface.
    fn entry(&self, group: u16) -> Entry;

    /// Tries the op once without blocking. Returns its result, or [`crate::syscalls::AGAIN`]. Adds the number of
    /// system calls to `calls`.
    ///
    /// # Safety
    /// The memory that the op points at is valid, as `Driver::submit` demands.
    unsafe fn attempt(&self, calls: &mut u64) -> i32;

    /// Carries the op out on a thread that may wait for a disk. Ops whose course ends in the pool override this.
    ///
    /// # Safety
    /// The contract of [`Operation::attempt`].
    unsafe fn block(&self) -> i32 {
        // SAFETY: the caller's contract.
        unsafe { self.attempt(&mut 0) }
    }
}

/// Cuts a length to what an entry can hold (32 bits) and one call transfers (read(2), "NOTES"). A longer transfer is
/// cut short, which submitters must expect anyway.
pub(super) fn clamp(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}

/// An op that has no readiness and no attempt that could not wait: `$call` is its system call, for a thread that may wait for a
/// disk. `$uses` are the fds that it uses; -1 means none.
macro_rules! blocking {
    ($op:ident, $facts:expr, $sample:expr, $it:ident => $uses:expr, $entry:expr, $call:expr) => {
        impl Operation for $op {
            const FACTS: Facts = $facts;

            const SAMPLE: Self = $sample;

            fn course(&self) -> Course {
                let $it = self;
                Course::Blocking($uses)
            }

            fn entry(&self, _group: u16) -> Entry {
                let $it = self;
                $entry
            }

            unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
                AGAIN
            }

            unsafe fn block(&self) -> i32 {
                let $it = self;
                // SAFETY: the submitter keeps what the op points at valid.
                retry(&mut 0, || check(i64::from(unsafe { $call })))
            }
        }
    };
}
pub(super) use blocking;
