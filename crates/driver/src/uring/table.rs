//! The ops in flight, by token and by fd.
//!
//! Each is remembered whole: it may have to be submitted again (a multishot that ended, a file that answers `-EAGAIN`,
//! another thread that takes the ring over), and closing an fd must find what still uses it. A close waits here until
//! its fd is used by nothing, so that no number is reused under an op.

use std::collections::HashMap;
use std::os::fd::RawFd;

use smallvec::SmallVec;

use crate::completion::Token;
use crate::ops::{Course, Op};
use crate::tokens::TokenMap;

/// How an op is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By its own opcode.
    Native,
    /// By a poll on the ring, then its system call.
    Polled,
    /// By a pool thread.
    Pool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) op: Op,
    pub(super) way: Way,
    pub(super) cancelled: bool,
    /// An entry of it is queued or with the kernel, or it is with the pool; otherwise it waits to be submitted again.
    pub(super) armed: bool,
    /// The group that its receive takes buffers from.
    pub(super) group: u16,
    /// Connections in a row that an accept has passed over.
    pub(super) failures: u8,
    /// How often entries had been handed over when its own was queued: if that is still so, its own has not been.
    pub(super) since_fill: u32,
}

/// A connection has two ops in flight at most: one each way.
pub(super) type Uses = SmallVec<[Token; 2]>;

#[derive(Default)]
pub(super) struct Table {
    ops: TokenMap<InFlight>,
    /// The ops that use an fd, by its number.
    fds: Vec<Uses>,
    /// Closes that wait for the ops of their fd.
    closing: HashMap<RawFd, Token>,
    /// Closes whose fds are used no longer.
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
                // SAFETY: F_GETFD only reads the fd table. A number that is no open file could be any number.
                if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                    continue;
                }
                self.fds.resize_with(index + 1, Uses::default);
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
        self.ops.get(&token)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut InFlight> {
        self.ops.get_mut(&token)
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<InFlight> {
        let removed = self.ops.remove(&token)?;
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

    /// Whether a close of this fd waits already: it is as good as closed.
    pub(super) fn is_closing(&self, fd: RawFd) -> bool {
        self.closing.contains_key(&fd)
    }

    /// The close waits until nothing uses its fd.
    pub(super) fn close_later(&mut self, token: Token, fd: RawFd) {
        self.closing.insert(fd, token);
    }

    /// Whether the token is that of a close which waits.
    pub(super) fn is_deferred(&self, token: Token) -> bool {
        self.ops.get(&token).is_some_and(|entry| {
            matches!(entry.op.course(), Course::Close(fd) if self.closing.get(&fd) == Some(&token))
                || self.closable.contains(&token)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &InFlight)> {
        self.ops.iter().map(|(token, op)| (*token, op))
    }
}
