//! Binds the ring to the thread that runs it, and moves to a new ring when another thread takes the loop over.
//!
//! A ring with SINGLE_ISSUER belongs to its first thread for good. A loop that has run in one thread may later run in
//! another (never in both at once): then what the old ring has completed is taken out of its memory, a new one is made,
//! the old one is closed for good, and all that waits without having begun is submitted to the new one.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;

use super::UringDriver;
use super::label::{Label, WAKE};
use super::ring::Ring;
use super::table::{InFlight, Way};
use crate::completion::Token;
use crate::ops::{Movable, OpKind};

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

    /// Whether the op can be dropped with one ring and submitted to another.
    fn is_movable(&self, entry: &InFlight) -> bool {
        match (entry.way, entry.op.kind().facts().movable) {
            (Way::Polled, _) | (_, Movable::Always) => true,
            (_, Movable::WhileInert) => self.ring.is_inert(),
            (_, Movable::Never) => false,
        }
    }

    /// Waits a moment until the ring's thread has let go of it: one that has been joined may still be on its way out of
    /// the kernel. False: it lives and keeps the ring registered, so that closing the fd would not free the ring. What
    /// waits on the ring would wait on (an accept there takes connections that nobody gets).
    fn is_let_go(&self) -> bool {
        for _ in 0..20 {
            if !self.ring.is_held_by_its_thread() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    fn rebind(&mut self) -> io::Result<()> {
        let mut completed = Vec::new();
        self.reap(&mut completed);
        self.queued.extend(completed);

        // What was never handed over goes to the new ring as it is.
        let staged: HashSet<u64> = self.backlog.iter().map(Entry::get_user_data).collect();
        let staged_tokens: HashSet<Token> = staged
            .iter()
            .filter_map(|data| Label::read(*data).token())
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
        let stuck = left.iter().filter(|(_, entry)| !self.is_movable(entry)).count();
        if stuck > 0 || self.ring.overflowed() || self.ring.queued() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("another thread runs this io_uring, with {stuck} ops in flight that can't be moved"),
            ));
        }
        if !self.is_let_go() {
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
        self.wake_armed = staged.contains(&WAKE);
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
