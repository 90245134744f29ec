//! The one op that a side of a transport has in flight.
//!
//! ```text
//!             begin              stop
//!   Nothing ────────> Going ─────────────> Stopping
//!      ▲                │ terminal             │ terminal
//!      └────────────────┴──────────────────────┘ completion: `over`
//! ```
//!
//! An op that was stopped is still the kernel's until its terminal completion: nothing begins before that, and the fd
//! stays open.

use std::num::NonZero;
use std::os::fd::RawFd;

use proact_driver::{Op, Token, ops};

use crate::reactor::io::{Io, Sent};
use crate::reactor::target::Target;

#[derive(Clone, Copy, Default)]
pub(super) enum InFlight {
    #[default]
    Nothing,
    Going(NonZero<Token>),
    /// The op was asked to end.
    Stopping,
}

impl InFlight {
    /// Submits an op where none is in flight. An op that is over at once leaves its result.
    ///
    /// # Safety
    /// As for [`Io::submit`].
    #[inline]
    pub unsafe fn begin(&mut self, io: &mut Io, op: Op, target: Target) -> Option<i32> {
        debug_assert!(self.is_nothing());
        // SAFETY: as the caller says.
        match unsafe { io.submit(op, target) } {
            Sent::Pending(token) => {
                *self = NonZero::new(token).map_or(InFlight::Nothing, InFlight::Going);
                None
            }
            Sent::Ready(result) => Some(result),
        }
    }

    /// Waits until the fd is ready: once.
    pub fn poll(&mut self, io: &mut Io, fd: RawFd, events: i16, target: Target) -> Option<i32> {
        let events = events as u32;
        // SAFETY: a poll points at no memory.
        unsafe { self.begin(io, Op::Poll(ops::Poll { fd, events }), target) }
    }

    /// Tells each time that the fd has something to read.
    pub fn watch(&mut self, io: &mut Io, fd: RawFd, target: Target) -> Option<i32> {
        let events = libc::POLLIN as u32;
        // SAFETY: a poll points at no memory.
        unsafe { self.begin(io, Op::PollMulti(ops::PollMulti { fd, events }), target) }
    }

    /// Asks the op to end; true if it is over by this, and takes nothing any more (`Driver::cancel`).
    pub fn stop(&mut self, io: &mut Io) -> bool {
        let InFlight::Going(token) = *self else {
            return false;
        };
        *self = InFlight::Stopping;
        io.cancel(token.get())
    }

    /// The terminal completion has come.
    pub fn over(&mut self) {
        *self = InFlight::Nothing;
    }

    pub fn is_nothing(self) -> bool {
        matches!(self, InFlight::Nothing)
    }

    pub fn is_stopping(self) -> bool {
        matches!(self, InFlight::Stopping)
    }
}
