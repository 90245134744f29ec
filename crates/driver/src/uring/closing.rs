//! Closes: an fd is closed once no op in flight uses it, so that the kernel does not reuse its number under an op.

use std::os::fd::RawFd;

use super::UringDriver;
use super::table::Way;
use crate::completion::Token;
use crate::driver::Submitted;
use crate::ops::Op;

impl UringDriver {
    pub(super) fn submit_close(&mut self, token: Token, op: Op, fd: RawFd) -> Submitted {
        for user in self.table.users(fd) {
            self.cancel_one(user);
        }
        if !self.table.users(fd).is_empty() {
            self.table.insert(token, op, Way::Native, self.ring.fills());
            self.table.close_later(token, fd);
        } else if self.features.native(op.kind()) {
            self.table.insert(token, op, Way::Native, self.ring.fills());
            self.arm(token, &op, Way::Native);
        } else {
            return self.at_once(&op);
        }
        self.stats.submit(op.kind());
        Submitted::Pending
    }

    /// Carries out the closes whose fds are no longer in use.
    pub(super) fn close_closable(&mut self) {
        for token in std::mem::take(&mut self.table.closable) {
            let Some(op) = self.table.get(token).map(|entry| entry.op) else {
                continue;
            };
            if self.features.native(op.kind()) {
                self.arm(token, &op, Way::Native);
            } else {
                // SAFETY: a close points at no memory.
                let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
                self.end(token, result);
            }
        }
    }
}
