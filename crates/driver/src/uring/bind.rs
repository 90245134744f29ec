//! Binds the ring to the thread that runs it, and replaces the ring when another thread takes the loop over.
//!
//! A ring with SINGLE_ISSUER belongs to its first thread for ever (io_uring_setup(2)). But a loop that has run in one
//! thread may later run in another, never in both at once. Then the engine takes the completions out of the old
//! ring's memory, makes a new ring, closes the old one and waits until the kernel has freed it, and submits the ops
//! that wait and have not begun to the new ring. Where the locked memory of one user has no room for two rings, the old one is closed first.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;

use super::UringDriver;
use super::label::{Label, WAKE};
use super::ring::Ring;
use super::setup::patiently;
use super::table::{InFlight, Way};
use crate::completion::Token;
use crate::ops::{Movable, OpKind};

impl UringDriver {
    /// Makes the ring usable by the calling thread.
    ///
    /// # Errors
    /// `AlreadyExists` if another thread has run the ring and either has left ops on it that can't be moved, or still
    /// lives and has not let go of it.
    pub(super) fn bind(&mut self) -> io::Result<()> {
        if self.ring.is_foreign() || self.ring.is_closed() {
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

    /// Waits up to 20 ms until the ring's thread has let go of it, because a thread that has been joined may still be
    /// on its way out of the kernel. False: the thread lives and keeps the ring registered. Then closing the fd would
    /// not free the ring, and the ops on it would go on waiting (an accept would take connections that nobody gets).
    fn wait_until_let_go(&self) -> bool {
        for _ in 0..20 {
            if !self.ring.is_registered_by_live_thread() {
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

        // Entries that the kernel never got go to the new ring unchanged.
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
        if stuck > 0 || self.ring.overflowed() || self.ring.unsubmitted() > 0 {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "another thread runs this io_uring and has {stuck} ops in flight that can't be moved"
                ),
            ));
        }
        if !self.wait_until_let_go() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "another thread has run this io_uring and has not let go of it (Driver::unbind)",
            ));
        }

        let mut made = self.make_ring();
        if matches!(&made, Err(error) if error.raw_os_error() == Some(libc::ENOMEM)) {
            // The old ring is of no use here, and the locked memory that the new one lacks may be its own.
            self.ring.close();
            made = self.make_ring();
        }
        let failure = match made {
            Ok(ring) => {
                std::mem::replace(&mut self.ring, ring).close();
                None
            }
            // Ops wait on the old ring as before.
            Err(error) if !self.ring.is_closed() => return Err(error),
            // They wait for a ring, which the next `bind` may get.
            Err(error) => Some(error),
        };
        self.wake_armed = staged.contains(&WAKE);
        for (token, entry) in left {
            if entry.cancelled {
                self.end(token, -libc::ECANCELED);
            } else if let Some(entry) = self.table.get_mut(token) {
                entry.armed = false;
                self.rearm.push(token);
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.lend_again();
        Ok(())
    }

    fn make_ring(&mut self) -> io::Result<Ring> {
        let (ring, _) = Ring::new(&self.config, &self.features)?;
        if self.features.native(OpKind::RecvMulti) {
            patiently(|| self.buffers.register(&ring))?;
        }
        Ok(ring)
    }
}
