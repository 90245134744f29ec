//! What an engine can be asked to do. Each family of ops has one file here, which says everything about them: what they
//! are, their entries on a ring, their non-blocking attempts, what they wait for and what may be done with them.
//!
//! An op is plain data: file descriptors and raw pointers. It owns nothing. The submitter keeps the memory that an op
//! points at alive and unmoved until the terminal completion (a completion without [`crate::Flags::MORE`]).
//!
//! Sockets to accept on and to connect must be in non-blocking mode. For all other ops the mode does not matter: an op
//! waits without holding up the loop, and its result is never `-EAGAIN`. An fd that ops have been submitted for must be
//! closed by [`Close`]. Ops of one fd and direction that are in flight together may be carried out in any order.
//!
//! A new op is a struct with an [`Operation`] in one of these files, and its name in the list at the end of this one.

mod operation;

use std::os::fd::RawFd;

use io_uring::squeue::Entry;

pub(crate) use accept::{FAILURES, is_exhaustion, is_transient};
pub use operation::Direction;
pub(crate) use operation::{Course, Facts, Movable, Opcode, Operation};
pub(crate) use poll::OPCODE as POLL;
pub(crate) use splice::waits_on as splice_waits_on;

macro_rules! ops {
    ($($family:ident { $($op:ident),+ })+) => {
        $(mod $family;)+
        $(pub use $family::{$($op),+};)+

        /// One operation. Results are the system call's: a count, a new fd, or 0; negative is `-errno`.
        #[derive(Clone, Copy, Debug)]
        pub enum Op { $($($op($op)),+),+ }

        /// The kind of an op: what statistics count by, and what a ring's completions are labelled with.
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

            /// As [`Operation::entry`].
            pub(crate) fn entry(&self, group: u16) -> Entry {
                match self { $($(Op::$op(op) => op.entry(group)),+),+ }
            }

            /// As [`Operation::attempt`].
            ///
            /// # Safety
            /// The same.
            pub(crate) unsafe fn attempt_counted(&self, calls: &mut u64) -> i32 {
                // SAFETY: passed on.
                unsafe { match self { $($(Op::$op(op) => op.attempt(calls)),+),+ } }
            }

            /// As [`Operation::block`].
            ///
            /// # Safety
            /// The same.
            pub(crate) unsafe fn block(&self) -> i32 {
                // SAFETY: passed on.
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
    file { Read, Write, Readv, Writev, Fsync }
    poll { Poll, PollMulti }
    path { OpenAt, Statx, RenameAt }
    close { Close }
    splice { Splice }
    shutdown { Shutdown }
    child { WaitId }
}

// SAFETY: an op is data to hand to a kernel. Its submitter answers for its pointers (`Driver::submit` is unsafe).
unsafe impl std::marker::Send for Op {}
// SAFETY: as above: sharing it shares no access to what it points at.
unsafe impl Sync for Op {}

impl OpKind {
    /// As [`Operation::SAMPLE`].
    pub(crate) fn sample(self) -> Op {
        OpKind::SAMPLES[self as usize]
    }

    pub(crate) fn facts(self) -> &'static Facts {
        &OpKind::FACTS[self as usize]
    }

    /// The name in statistics.
    pub fn name(self) -> &'static str {
        self.facts().name
    }
}

impl Op {
    /// Tries it once without blocking: its result, or [`crate::syscalls::AGAIN`]. A connect that has begun answers
    /// `-EINPROGRESS`.
    ///
    /// What only a disk makes wait (a regular file at its current position) does wait; at an offset the answer is
    /// `AGAIN`.
    ///
    /// # Safety
    /// What the op points at is valid, as `Driver::submit` demands.
    pub unsafe fn attempt(&self) -> i32 {
        // SAFETY: passed on.
        unsafe { self.attempt_counted(&mut 0) }
    }

    pub(crate) fn uses(&self) -> [RawFd; 2] {
        self.course().uses()
    }

    pub(crate) fn waits_on(&self) -> Option<(RawFd, Direction)> {
        self.course().waits_on()
    }

    /// Nobody will take the result any more: an fd in it must not leak.
    pub(crate) fn discard(&self, result: i32) {
        if result >= 0 && self.kind().facts().makes_fd {
            // SAFETY: an fd that the op made and that nobody has been told of.
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

    /// The sample of each kind is refused at once, by whichever of the two calls its course makes.
    #[test]
    fn each_op_answers() {
        for kind in OpKind::ALL {
            let op = kind.sample();
            // SAFETY: a sample points at nothing, and its fd is no file.
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
