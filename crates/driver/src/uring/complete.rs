//! Turns the kernel's completions into the driver's: which op each belongs to, whether the op is over, and whether
//! the op has to be submitted again.

use io_uring::cqueue;

use super::UringDriver;
use super::label::Label;
use super::table::{InFlight, Way};
use crate::completion::{Completion, Flags, Token};
use crate::errno::named;
use crate::ops::{Course, FAILURES, Op, OpKind, Recv, is_transient, splice_waits_on};
use crate::syscalls::{self, AGAIN};

const CANCELED: i32 = -libc::ECANCELED;
const INTERRUPTED: i32 = -libc::EINTR;
/// `ERESTARTSYS` and the other restart codes. The kernel keeps them to itself, except for some ops of its worker
/// threads (a cancelled splice, seen on Linux 6.18).
const RESTARTS: std::ops::RangeInclusive<i32> = -516..=-512;

impl UringDriver {
    /// Moves every completion of the ring into the batch.
    pub(super) fn reap(&mut self, batch: &mut Vec<Completion>) {
        self.grew = false;
        let mut reaped = std::mem::take(&mut self.reaped);
        loop {
            self.ring.reap(&mut reaped);
            if reaped.is_empty() {
                break;
            }
            for (user_data, result, flags) in reaped.drain(..) {
                self.on_completion(user_data, result, flags, batch);
            }
        }
        self.reaped = reaped;
        // Every completion is in the batch now, unless the kernel keeps more of them than the queue holds.
        if self.buffers.is_short() && self.ring.is_ours() && !self.ring.overflowed() {
            self.widen();
        }
    }

    /// Asks for a larger buffer ring, to lend more buffers. If the kernel refuses, the engine goes on with the
    /// buffers it has.
    fn widen(&mut self) {
        self.stats.syscalls += 2;
        if let Err(error) = self.buffers.widen(&self.ring) {
            let line = format!(
                "buf_ring: {} when it had to grow; it stays at {} buffers",
                named(&error),
                self.buffers.lent()
            );
            self.stats.fallbacks.push(line);
        }
        self.stats.buffers = self.buffers.lent().into();
        self.rearm.append(&mut self.starved);
    }

    fn on_completion(&mut self, user_data: u64, result: i32, flags: u32, batch: &mut Vec<Completion>) {
        match Label::read(user_data) {
            Label::Op(kind, token) => match kind.sample().course() {
                Course::RecvMulti(_) => self.on_recv_multi(token, result, flags, batch),
                Course::AcceptMulti(_) => self.on_accept_multi(token, kind, result, flags, batch),
                Course::WatchMulti(..) => self.on_poll_multi(token, kind, result, flags, batch),
                Course::Once(..)
                | Course::File(..)
                | Course::Connect(_)
                | Course::Watch(..)
                | Course::Splice { .. }
                | Course::Blocking(_)
                | Course::Immediate(_)
                | Course::Close(_) => self.on_single(token, result, batch),
            },
            Label::Polled(_, token) => self.on_polled(token, result, batch),
            Label::Wake => {
                self.wake_armed = false;
                self.stats.syscalls += 1;
                self.waker.drain();
            }
            Label::Ignored => {}
        }
    }

    fn finish(&mut self, token: Token, result: i32, batch: &mut Vec<Completion>) {
        if let Some(op) = self.table.remove(token) {
            self.stats.complete(op.op.kind(), true);
            if self.discards {
                op.op.discard(result);
            }
            batch.push(Completion::terminal(token, result));
        }
    }

    /// Has an op submitted again before the next wait, because its entry is used up and the op goes on.
    fn again(&mut self, token: Token, batch: &mut Vec<Completion>) {
        match self.table.get_mut(token) {
            Some(entry) if !entry.cancelled => {
                entry.armed = false;
                self.rearm.push(token);
            }
            _ => self.finish(token, CANCELED, batch),
        }
    }

    /// Handles a receive that found no buffer. The first one in a wait makes the engine lend more buffers. The others
    /// failed before that, so they do not show that still more are needed. If every buffer is held, the receive waits
    /// until one is given back.
    fn out_of_buffers(&mut self, token: Token, batch: &mut Vec<Completion>) {
        self.stats.buffer_exhaustions += 1;
        if !std::mem::replace(&mut self.grew, true) {
            self.buffers.grow();
            self.stats.buffers = self.buffers.lent().into();
        }
        self.again(token, batch);
        if self.buffers.are_all_held() && self.rearm.last() == Some(&token) {
            self.rearm.pop();
            self.starved.push(token);
        }
    }

    fn more(&mut self, token: Token, kind: OpKind, result: i32, batch: &mut Vec<Completion>) {
        self.stats.complete(kind, false);
        if self.discards {
            kind.sample().discard(result);
        }
        batch.push(Completion {
            token,
            result,
            flags: Flags::MORE,
            data: 0,
        });
    }

    fn piece(&mut self, token: Token, result: i32, buffer: u16, batch: &mut Vec<Completion>) {
        let full = if result as u32 == self.buffers.size() {
            Flags::FULL
        } else {
            Flags::default()
        };
        self.stats.complete(OpKind::RecvMulti, false);
        batch.push(Completion {
            token,
            result,
            flags: Flags::DATA | Flags::MORE | full,
            data: u32::from(buffer),
        });
    }

    fn on_recv_multi(&mut self, token: Token, result: i32, flags: u32, batch: &mut Vec<Completion>) {
        let goes_on = cqueue::more(flags);
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.take(buffer);
            if result > 0 {
                self.piece(token, result, buffer, batch);
            } else {
                self.buffers.give_back(buffer);
            }
        }
        if goes_on {
            return;
        }
        match result {
            1.. | AGAIN | INTERRUPTED => self.again(token, batch),
            error if error == -libc::ENOBUFS => match self.table.get(token) {
                // The buffers have moved to another group since this receive was submitted.
                Some(entry) if entry.group != self.buffers.group() => self.again(token, batch),
                _ => self.out_of_buffers(token, batch),
            },
            end => self.finish(token, end, batch),
        }
    }

    fn on_accept_multi(
        &mut self,
        token: Token,
        kind: OpKind,
        result: i32,
        flags: u32,
        batch: &mut Vec<Completion>,
    ) {
        if result >= 0 {
            self.more(token, kind, result, batch);
            if let Some(entry) = self.table.get_mut(token) {
                entry.failures = 0;
            }
        }
        if !cqueue::more(flags) {
            self.accept_again(token, result, batch);
        }
    }

    /// Handles the end of an accept's entry. The accept goes on after a connection or an error of one connection;
    /// other errors end it.
    fn accept_again(&mut self, token: Token, result: i32, batch: &mut Vec<Completion>) {
        let failed = is_transient(result);
        let Some(entry) = self.table.get_mut(token) else {
            return;
        };
        entry.failures = if failed { entry.failures + 1 } else { 0 };
        if result >= 0 || result == AGAIN || (failed && entry.failures < FAILURES) {
            self.again(token, batch);
        } else {
            self.finish(token, result, batch);
        }
    }

    fn on_poll_multi(
        &mut self,
        token: Token,
        kind: OpKind,
        result: i32,
        flags: u32,
        batch: &mut Vec<Completion>,
    ) {
        if result < 0 {
            return self.finish(token, result, batch);
        }
        if let Some(entry) = self.table.get(token) {
            let told = match entry.op {
                Op::PollMulti(poll) => poll.told(result, self.features.looks),
                _ => result,
            };
            self.more(token, kind, told, batch);
            if !cqueue::more(flags) {
                self.again(token, batch);
            }
        }
    }

    /// Handles the result of an op that has one completion, from the ring or from the pool.
    pub(super) fn on_single(&mut self, token: Token, result: i32, batch: &mut Vec<Completion>) {
        let result = if RESTARTS.contains(&result) {
            INTERRUPTED
        } else {
            result
        };
        if !matches!(result, AGAIN | INTERRUPTED) {
            return self.finish(token, result, batch);
        }
        let Some(entry) = self.table.get(token).copied() else {
            return;
        };
        let course = entry.op.course();
        if matches!(course, Course::Close(_) | Course::Connect(_)) {
            return self.finish(token, result, batch);
        }
        // The kernel interrupts its worker thread to cancel an op, so these results mean that the op was cancelled.
        if entry.cancelled {
            return self.finish(token, CANCELED, batch);
        }
        if result == INTERRUPTED {
            return self.again(token, batch);
        }
        if let Course::Splice { from, to } = course {
            return self.splice_again(token, &entry.op, from, to, batch);
        }
        if course.waits_on().is_none() {
            return self.finish(token, result, batch);
        }
        // The kernel could not arm a poll by itself for a non-blocking file (a tty; a pipe on older kernels) and
        // returned EAGAIN. From now on the engine polls.
        if let Some(entry) = self.table.get_mut(token) {
            entry.way = Way::Polled;
        }
        self.again(token, batch);
    }

    fn splice_again(&mut self, token: Token, op: &Op, from: i32, to: i32, batch: &mut Vec<Completion>) {
        self.stats.syscalls += 2;
        match splice_waits_on(from, to) {
            Some((fd, direction)) => self.arm_poll(token, op, fd, direction),
            None => self.again(token, batch),
        }
    }

    /// Makes the system call of an op after its poll has completed.
    fn on_polled(&mut self, token: Token, polled: i32, batch: &mut Vec<Completion>) {
        let Some(entry) = self.table.get(token).copied() else {
            return;
        };
        if polled < 0 {
            return self.finish(token, polled, batch);
        }
        match entry.op.course() {
            Course::RecvMulti(fd) => self.on_polled_recv(token, fd, batch),
            Course::Splice { .. } if entry.cancelled => self.finish(token, CANCELED, batch),
            Course::Splice { .. } => self.arm(token, &entry.op, entry.way),
            Course::Connect(fd) => {
                self.stats.syscalls += 1;
                self.finish(token, syscalls::socket_error(fd), batch);
            }
            Course::WatchMulti(..) => {
                self.more(token, entry.op.kind(), polled, batch);
                self.again(token, batch);
            }
            Course::AcceptMulti(_) => {
                let result = self.attempt(&entry.op);
                if result >= 0 {
                    self.more(token, entry.op.kind(), result, batch);
                }
                self.accept_again(token, result, batch);
            }
            Course::Once(..)
            | Course::File(..)
            | Course::Watch(..)
            | Course::Blocking(_)
            | Course::Immediate(_)
            | Course::Close(_) => self.on_attempt(token, &entry, batch),
        }
    }

    fn on_attempt(&mut self, token: Token, entry: &InFlight, batch: &mut Vec<Completion>) {
        match self.attempt(&entry.op) {
            AGAIN => self.again(token, batch),
            result => self.finish(token, result, batch),
        }
    }

    /// Attempts an op in flight, or an op with memory of the engine.
    fn attempt(&mut self, op: &Op) -> i32 {
        // SAFETY: the memory of an op in flight is valid (contract of `Driver::submit`).
        unsafe { op.attempt_counted(&mut self.stats.syscalls) }
    }

    fn on_polled_recv(&mut self, token: Token, fd: i32, batch: &mut Vec<Completion>) {
        let Some(buffer) = self.buffers.pick() else {
            return self.out_of_buffers(token, batch);
        };
        let (buf, len) = self.buffers.room(buffer);
        let recv = Recv {
            fd,
            buf,
            len,
            flags: 0,
        };
        // The buffer was free, so the memory is unused.
        let result = self.attempt(&recv.into());
        if result > 0 {
            self.piece(token, result, buffer, batch);
            return self.again(token, batch);
        }
        self.buffers.give_back(buffer);
        if result == AGAIN {
            self.again(token, batch);
        } else {
            self.finish(token, result, batch);
        }
    }
}
