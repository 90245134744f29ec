//! Binds the ring to the thread that runs it, and moves to a new ring when another thread takes the loop over.
//!
//! A ring with SINGLE_ISSUER belongs to its first thread for good. A loop that has run in one thread may later run in
//! another (never in both at once): then what the old ring has completed is taken out of its memory, a new one is made,
//! the old one is closed for good, and all that waits without having begun is submitted to the new one.

use std::collections::HashSet;
use std::io;

use io_uring::squeue::Entry;

use super::ring::Ring;
use super::table::{InFlight, Way};
use super::{INTERNAL, TOKEN_MASK, UringDriver, WAKE, tag};
use crate::op::{OpKind, TOKEN_BITS, Token};

/// Whether the op can be dropped with one ring and submitted to another.
fn is_movable(entry: &InFlight, ring: &Ring) -> bool {
    use OpKind::{Accept, AcceptMulti, Poll, PollMulti, RecvMulti, WaitId};
    match (entry.way, entry.op.kind()) {
        (Way::Polled, _) | (_, Poll | PollMulti | WaitId) => true,
        // What they take after the last look at the old ring would be lost.
        (_, Accept | AcceptMulti | RecvMulti) => ring.is_inert(),
        _ => false,
    }
}

impl UringDriver {
    /// Makes the ring ready for the calling thread.
    ///
    /// # Errors
    /// `AlreadyExists` where another thread has run it, and has left ops on it that can't be moved or lives on without
    /// having let go of it.
    pub(super) fn bind(&mut self) -> io::Result<()> {
        if self.ring.is_foreign() {
            self.rebind()?;
        }
        self.ring.start()
    }

    fn rebind(&mut self) -> io::Result<()> {
        let mut completed = Vec::new();
        self.reap(&mut completed);
        self.queued.extend(completed);

        // What was never handed over goes to the new ring as it is.
        let staged: Vec<u64> = self.backlog.iter().map(Entry::get_user_data).collect();
        let staged_tokens: HashSet<Token> = staged
            .iter()
            .filter(|data| (*data >> TOKEN_BITS) as u8 != INTERNAL)
            .map(|data| data & TOKEN_MASK)
            .collect();
        let left: Vec<(Token, InFlight)> = self
            .table
            .iter()
            .filter(|(token, entry)| {
                entry.armed
                    && entry.way != Way::Pool
                    && !self.table.is_deferred(*token)
                    && !staged_tokens.contains(token)
            })
            .map(|(token, entry)| (token, *entry))
            .collect();
        let stuck = left
            .iter()
            .filter(|(_, entry)| !is_movable(entry, &self.ring))
            .count();
        if stuck > 0 || self.ring.overflowed() || self.ring.queued() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("another thread runs this io_uring, with {stuck} ops in flight that can't be moved"),
            ));
        }
        if self.ring.is_clung_to() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another thread has run this io_uring and has not let go of it (Driver::unbind)",
            ));
        }

        let (ring, _) = Ring::new(&self.config, &self.features)?;
        if self.features.native(OpKind::RecvMulti) {
            self.buffers.register(&ring)?;
        }
        std::mem::replace(&mut self.ring, ring).retire();
        self.wake_armed = staged.contains(&tag(INTERNAL, WAKE));
        for (token, entry) in left {
            if entry.cancelled {
                self.end(token, -libc::ECANCELED);
            } else if let Some(entry) = self.table.get_mut(token) {
                entry.armed = false;
                self.rearm.push(token);
            }
        }
        Ok(())
    }
}
