//! Submissions: each op gets a result at once, waits in the queue of its fd, or goes to the pool.

use std::os::fd::RawFd;

use super::{InPool, Place, ReadinessDriver, Waiter};
use crate::completion::{Completion, Flags, Token};
use crate::driver::Submitted;
use crate::ops::{Course, Direction, Op, OpKind, is_exhaustion, is_transient};
use crate::pool::Pool;
use crate::selector::Selector;
use crate::syscalls::AGAIN;

impl<S: Selector> ReadinessDriver<S> {
    /// # Safety
    /// The contract of `Driver::submit`.
    pub(super) unsafe fn begin(&mut self, token: Token, op: Op) -> Submitted {
        match op.course() {
            Course::Close(fd) => self.submit_close(token, op, fd),
            Course::Immediate(_) => {
                // SAFETY: the caller's contract.
                let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
                self.done(&op, result)
            }
            Course::Blocking(_) | Course::Splice { .. } => self.submit_to_pool(token, op),
            Course::Watch(fd, direction) | Course::WatchMulti(fd, direction) => {
                self.wait_for(token, op, fd, direction)
            }
            Course::RecvMulti(fd) => self.wait_for(token, op, fd, Direction::Read),
            Course::AcceptMulti(fd) => {
                if self.is_behind_others(fd, Direction::Read) {
                    return self.wait_for(token, op, fd, Direction::Read);
                }
                // SAFETY: the caller's contract.
                let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
                self.accept_first(token, op, fd, result)
            }
            // SAFETY: the caller's contract.
            Course::Connect(fd) => unsafe {
                self.try_first(token, op, fd, Direction::Write, -libc::EINPROGRESS)
            },
            // SAFETY: the caller's contract.
            Course::Once(fd, direction) | Course::File(fd, direction) => unsafe {
                self.try_first(token, op, fd, direction, AGAIN)
            },
        }
    }

    /// Attempts an op unless other ops of its fd must run first. If the attempt returns `unfinished`, the op waits
    /// for its fd.
    ///
    /// # Safety
    /// The contract of `Driver::submit`.
    unsafe fn try_first(
        &mut self,
        token: Token,
        op: Op,
        fd: RawFd,
        direction: Direction,
        unfinished: i32,
    ) -> Submitted {
        if !self.is_behind_others(fd, direction) {
            // SAFETY: the caller's contract.
            let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
            if result != unfinished {
                return self.done(&op, result);
            }
        }
        self.wait_for(token, op, fd, direction)
    }

    /// Whether ops that must run first wait for the fd. Polls take no bytes, so they do not count.
    fn is_behind_others(&mut self, fd: RawFd, direction: Direction) -> bool {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.fds.get(index)?.line(direction))
            .is_some_and(|line| line.iter().any(|waiter| !waiter.polls()))
    }

    /// Handles the result of an accept's first attempt. The accept goes on after a connection or an error of one
    /// connection; other errors end it.
    fn accept_first(&mut self, token: Token, op: Op, fd: RawFd, result: i32) -> Submitted {
        if is_exhaustion(result) {
            self.stats.submit(op.kind());
            self.end(token, op.kind(), result);
            return Submitted::Pending;
        }
        if result < 0 && result != AGAIN && !is_transient(result) {
            return self.done(&op, result);
        }
        let submitted = self.wait_for(token, op, fd, Direction::Read);
        if submitted != Submitted::Pending {
            op.discard(result);
        } else if result >= 0 {
            self.stats.complete(op.kind(), false);
            self.queued.push_back(Completion {
                flags: Flags::MORE,
                ..Completion::terminal(token, result)
            });
        }
        submitted
    }

    fn wait_for(&mut self, token: Token, op: Op, fd: RawFd, direction: Direction) -> Submitted {
        match self.enqueue(token, op, fd, direction) {
            Ok(()) => {
                self.stats.submit(op.kind());
                Submitted::Pending
            }
            // epoll can't wait for a regular file (epoll_ctl(2), `EPERM`).
            Err(libc::EPERM) if matches!(op.course(), Course::File(..)) => self.submit_to_pool(token, op),
            Err(errno) => self.done(&op, -errno),
        }
    }

    fn submit_to_pool(&mut self, token: Token, op: Op) -> Submitted {
        self.stats.submit(op.kind());
        self.delegate(token, op);
        Submitted::Pending
    }

    fn submit_close(&mut self, token: Token, op: Op, fd: RawFd) -> Submitted {
        self.abandon(fd);
        if let Some(state) = usize::try_from(fd).ok().and_then(|index| self.fds.get_mut(index)) {
            if state.is_closing() {
                return self.done(&op, -libc::EBADF);
            }
            if let Some(pooled) = &mut state.pooled {
                pooled.closing = Some((token, op));
                self.places.insert(token, Place::Closing);
                self.stats.submit(op.kind());
                return Submitted::Pending;
            }
        }
        let result = self.close_now(&op);
        self.done(&op, result)
    }

    /// Makes the system call of a close.
    fn close_now(&mut self, close: &Op) -> i32 {
        // SAFETY: a close points at no memory.
        unsafe { close.attempt_counted(&mut self.stats.syscalls) }
    }

    fn done(&mut self, op: &Op, result: i32) -> Submitted {
        self.stats.done_at_once(op.kind());
        Submitted::Ready(result)
    }

    /// Ends an op in flight, outside `wait`.
    pub(super) fn end(&mut self, token: Token, kind: OpKind, result: i32) {
        self.places.remove(token);
        self.stats.complete(kind, true);
        self.queued.push_back(Completion::terminal(token, result));
    }

    /// Adds an op to the queue of its fd and renews the watch.
    ///
    /// # Errors
    /// `EBADF` as an errno, or the selector's error.
    pub(super) fn enqueue(
        &mut self,
        token: Token,
        op: Op,
        fd: RawFd,
        direction: Direction,
    ) -> Result<(), i32> {
        let Some(state) = self.state(fd) else {
            return Err(libc::EBADF);
        };
        if state.is_closing() {
            return Err(libc::EBADF);
        }
        state.line_mut(direction).push_back(Waiter { token, op });
        let wanted = state.wanted(S::TELLS_EDGES);
        match self.selector.watch(fd, wanted, &mut self.stats) {
            Ok(()) => {
                self.places.insert(token, Place::Waiting(fd, direction));
                Ok(())
            }
            Err(error) => {
                self.fds[fd as usize].line_mut(direction).pop_back();
                Err(error.raw_os_error().unwrap_or(libc::EIO))
            }
        }
    }

    /// Hands an op that statistics have counted already to the pool.
    pub(super) fn delegate(&mut self, token: Token, op: Op) {
        for fd in op.uses() {
            if let Some(state) = self.state(fd) {
                state.pooled.get_or_insert_default().tokens.push(token);
            }
        }
        self.stats.pooled += 1;
        let place = Place::Pool(Box::new(InPool { op, cancelled: false }));
        self.places.insert(token, place);
        let waker = &self.waker;
        let pool = self.pool.get_or_insert_with(|| Pool::new(waker.clone()));
        // SAFETY: the op's memory is valid until its completion: the contract of `Driver::submit`.
        unsafe { pool.submit(token, op) };
    }

    /// Notes that the pool has an op no more, and carries out the closes that waited for it.
    pub(super) fn undelegate(&mut self, token: Token, op: &Op) {
        for fd in op.uses() {
            let Some(state) = usize::try_from(fd).ok().and_then(|index| self.fds.get_mut(index)) else {
                continue;
            };
            let Some(pooled) = &mut state.pooled else { continue };
            pooled.tokens.retain(|other| *other != token);
            if pooled.tokens.is_empty()
                && let Some((close, op)) = state.pooled.take().and_then(|pooled| pooled.closing)
            {
                let result = self.close_now(&op);
                self.end(close, op.kind(), result);
            }
        }
    }
}
