//! The table of the ops in flight, by token and by fd.
//!
//! The table keeps the whole op, because it may have to be submitted again (a multishot that ended, a file that
//! returns `-EAGAIN`, another thread that takes the loop over), and because a close must find the ops that use its
//! fd. A close waits here until no op uses its fd, so that the kernel does not reuse the number under an op.

use std::collections::HashMap;
use std::os::fd::RawFd;

use smallvec::SmallVec;

use crate::completion::Token;
use crate::ops::{Course, Op};
use crate::pages::Pages;
use crate::tokens::TokenMap;

/// How an op is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The ring carries the op out by its own opcode.
    Native,
    /// The ring polls, then the engine makes the op's system call.
    Polled,
    /// A pool thread makes the op's system call.
    Pool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) op: Op,
    pub(super) way: Way,
    pub(super) cancelled: bool,
    /// Whether an entry of the op is queued or with the kernel, or the op is with the pool. If not, the op waits to
    /// be submitted again.
    pub(super) armed: bool,
    /// The buffer group that the op receives into.
    pub(super) group: u16,
    /// How many connections in a row an accept has skipped.
    pub(super) failures: u8,
    /// The value of [`super::ring::Ring::fills`] when the op's entry was queued. If it has not changed, the entry is
    /// still in the backlog.
    pub(super) since_fill: u32,
}

/// The ops of one fd. A connection has at most two in flight: one in each direction.
pub(super) type Uses = SmallVec<[Token; 2]>;

#[derive(Default)]
pub(super) struct Table {
    ops: TokenMap<InFlight>,
    /// The ops that use an fd, indexed by its number.
    fds: Pages<Uses>,
    /// Closes that wait until no op uses their fd.
    closing: HashMap<RawFd, Token>,
    /// Closes whose fds are no longer in use.
    pub(super) closable: Vec<Token>,
}

impl Table {
    fn fd(&mut self, fd: RawFd) -> Option<&mut Uses> {
        self.fds.get_mut(usize::try_from(fd).ok()?)
    }

    pub(super) fn insert(&mut self, token: Token, op: Op, way: Way, since_fill: u32) {
        for fd in op.uses() {
            let Ok(index) = usize::try_from(fd) else { continue };
            if self.fds.len() <= index {
                // A number that is not open could be any number, and the vector would have to grow up to it.
                // SAFETY: F_GETFD only reads the fd table.
                if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                    continue;
                }
                self.fds.reach(index);
            }
            self.fds[index].push(token);
        }
        let entry = InFlight {
            op,
            way,
            cancelled: false,
            armed: true,
            since_fill,
            failures: 0,
            group: 0,
        };
        let replaced = self.ops.insert(token, entry);
        debug_assert!(replaced.is_none(), "token {token} is in flight already");
    }

    pub(super) fn get(&self, token: Token) -> Option<&InFlight> {
        self.ops.get(token)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut InFlight> {
        self.ops.get_mut(token)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<InFlight> {
        let removed = self.ops.remove(token)?;
        for fd in removed.op.uses() {
            let Some(uses) = self.fd(fd) else { continue };
            if let Some(index) = uses.iter().position(|used| *used == token) {
                uses.swap_remove(index);
            }
            if uses.is_empty()
                && !self.closing.is_empty()
                && let Some(close) = self.closing.remove(&fd)
            {
                self.closable.push(close);
            }
        }
        Some(removed)
    }

    /// The ops that use an fd.
    pub(super) fn users(&mut self, fd: RawFd) -> Uses {
        self.fd(fd).cloned().unwrap_or_default()
    }

    /// Whether a close of this fd waits. Then the fd counts as closed.
    pub(super) fn is_closing(&self, fd: RawFd) -> bool {
        self.closing.contains_key(&fd)
    }

    /// Lets a close wait until no op uses its fd.
    pub(super) fn close_later(&mut self, token: Token, fd: RawFd) {
        self.closing.insert(fd, token);
    }

    /// Whether the op is a close that waits.
    pub(super) fn is_deferred(&self, token: Token) -> bool {
        self.ops.get(token).is_some_and(|entry| {
            matches!(entry.op.course(), Course::Close(fd) if self.closing.get(&fd) == Some(&token))
                || self.closable.contains(&token)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &InFlight)> {
        self.ops.iter()
    }
}
