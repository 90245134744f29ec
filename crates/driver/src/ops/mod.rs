//! What an engine can be asked to do. Each family of ops has one file here, which holds everything about them: their
//! fields, their entries on a ring, their non-blocking attempts, what they wait for and what may be done with them.
//!
//! An op is plain data: file descriptors and raw pointers. It owns nothing. The submitter keeps the memory that an op
//! points at valid and unmoved until the terminal completion (a completion without [`crate::Flags::MORE`]).
//!
//! Sockets for accepts and connects must be in non-blocking mode. For all other ops the mode does not matter: an op
//! waits without holding up the loop, and its result is never `-EAGAIN`. An fd that ops have been submitted for must
//! be closed by [`Close`]. Ops of one fd and direction that are in flight together may run in any order.
//!
//! To add an op, write a struct that implements `Operation` in one of these files, and add its name to the `ops!`
//! list in this file.

mod accept;
mod append;
mod child;
mod close;
mod connect;
mod file;
mod operation;
mod path;
mod poll;
mod recv;
mod send;
mod shutdown;
mod splice;

use std::os::fd::RawFd;

use io_uring::squeue::Entry;

pub(crate) use accept::{FAILURES, is_exhaustion, is_transient};
pub use operation::Direction;
pub(crate) use operation::{Course, Facts, Movable, Opcode, Operation};
pub use poll::EDGES;
pub(crate) use poll::{NOT_ONLY_BYTES, OPCODE as POLL};
pub(crate) use splice::waits_on as splice_waits_on;

macro_rules! ops {
    ($($family:ident { $($op:ident),+ })+) => {
        $(pub use $family::{$($op),+};)+

        /// One operation. Its result is the system call's: a count, a new fd, or 0; negative is `-errno`.
        #[derive(Clone, Copy, Debug)]
        pub enum Op { $($($op($op)),+),+ }

        /// The kind of an op. Statistics count by it, and the labels of a ring's completions carry it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum OpKind { $($($op),+),+ }

        impl OpKind {
            /// Every kind, in the order of their discriminants.
            pub const ALL: &'static [OpKind] = &[$($(OpKind::$op),+),+];

            const FACTS: &'static [Facts] = &[$($($op::FACTS),+),+];

            const SAMPLES: &'static [Op] = &[$($(Op::$op($op::SAMPLE)),+),+];
        }

        impl Op {
            pub fn kind(&self) -> OpKind {
                match self { $($(Op::$op(_) => OpKind::$op),+),+ }
            }

            pub(crate) fn course(&self) -> Course {
                match self { $($(Op::$op(op) => op.course()),+),+ }
            }

            /// See [`Operation::entry`].
            pub(crate) fn entry(&self, group: u16) -> Entry {
                match self { $($(Op::$op(op) => op.entry(group)),+),+ }
            }

            /// See [`Operation::attempt`].
            ///
            /// # Safety
            /// The contract of [`Operation::attempt`].
            pub(crate) unsafe fn attempt_counted(&self, calls: &mut u64) -> i32 {
                // SAFETY: the caller's contract.
                unsafe { match self { $($(Op::$op(op) => op.attempt(calls)),+),+ } }
            }

            /// See [`Operation::block`].
            ///
            /// # Safety
            /// The contract of [`Operation::block`].
            pub(crate) unsafe fn block(&self) -> i32 {
                // SAFETY: the caller's contract.
                unsafe { match self { $($(Op::$op(op) => op.block()),+),+ } }
            }
        }

        $($(
            impl From<$op> for Op {
                fn from(op: $op) -> Op {
                    Op::$op(op)
                }
            }
        )+)+
    };
}

ops! {
    accept { AcceptMulti, Accept }
    connect { Connect }
    recv { RecvMulti, Recv, RecvMsg }
    send { Send, SendMsg }
    file { Read, Write, Readv, Writev, Fsync, WriteFsync, Truncate, Allocate }
    poll { Poll, PollMulti }
    append { AppendFsync }
    path { OpenAt, Statx, RenameAt, UnlinkAt, MkdirAt, SymlinkAt, LinkAt }
    close { Close }
    splice { Splice }
    shutdown { Shutdown }
    child { WaitId }
}

// SAFETY: an op is plain data that an engine hands to the kernel. The submitter answers for its pointers
// (`Driver::submit` is unsafe).
unsafe impl std::marker::Send for Op {}
// SAFETY: as above. Sharing an op gives no access to the memory that it points at.
unsafe impl Sync for Op {}

impl OpKind {
    /// See [`Operation::SAMPLE`].
    pub(crate) fn sample(self) -> Op {
        OpKind::SAMPLES[self as usize]
    }

    pub(crate) fn facts(self) -> &'static Facts {
        &OpKind::FACTS[self as usize]
    }

    /// The kind's name in statistics.
    pub fn name(self) -> &'static str {
        self.facts().name
    }
}

impl Op {
    /// Tries the op once without blocking. Returns its result, or [`crate::syscalls::AGAIN`]. A connect that has
    /// begun returns `-EINPROGRESS`.
    ///
    /// A transfer of a regular file at its current position waits for the disk; a transfer at an offset does not, if the
    /// file was opened without `O_DIRECT`.
    ///
    /// # Safety
    /// The memory that the op points at is valid, as `Driver::submit` demands.
    pub unsafe fn attempt(&self) -> i32 {
        // SAFETY: the caller's contract.
        unsafe { self.attempt_counted(&mut 0) }
    }

    pub(crate) fn uses(&self) -> [RawFd; 2] {
        self.course().uses()
    }

    pub(crate) fn waits_on(&self) -> Option<(RawFd, Direction)> {
        self.course().waits_on()
    }

    /// Closes the fd in a result that will not be delivered, so that it does not leak.
    pub(crate) fn discard(&self, result: i32) {
        if result >= 0 && self.kind().facts().makes_fd {
            // SAFETY: the op made the fd, and nobody else knows of it.
            unsafe { libc::close(result) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::AGAIN;

    #[test]
    fn kinds_are_numbered_as_their_facts() {
        for (number, kind) in OpKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, number);
            assert_eq!(kind.sample().kind(), *kind);
        }
    }

    /// The sample of each kind fails at once, in the one of the two calls that its course makes.
    #[test]
    fn each_op_answers() {
        for kind in OpKind::ALL {
            let op = kind.sample();
            // SAFETY: a sample has null pointers, and its fd is not open.
            let result = unsafe {
                match op.course() {
                    Course::Blocking(_) | Course::Splice { .. } => op.block(),
                    _ => op.attempt(),
                }
            };
            assert!(result < 0 && result != AGAIN, "{}: {result}", kind.name());
        }
    }
}
