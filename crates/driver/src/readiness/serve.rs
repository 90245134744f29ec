//! Lets ops go on when their fd is ready, in the order of their submission.

use std::os::fd::RawFd;

use super::{ReadinessDriver, Waiter};
use crate::completion::{Completion, Flags};
use crate::ops::{Course, Direction, EDGES, FAILURES, NOT_ONLY_BYTES, Op, Recv, is_transient};
use crate::selector::{Event, Selector};
use crate::syscalls::{self, AGAIN};

/// How many connections one wait accepts from one listener, so that a flood of them does not starve other fds.
const ACCEPTS: usize = 64;

/// The outcome of one step of an op.
enum Step {
    Done(i32),
    Waits,
    /// The op has to leave the queue and go to the pool. It stays in flight.
    Moved,
}

impl Waiter {
    /// Whether the op need not be told again of what it was told.
    pub(super) fn takes_edges(&self) -> bool {
        matches!(self.op, Op::PollMulti(poll) if poll.events & EDGES != 0)
    }

    /// Whether the op only polls. A poll takes no bytes, so ops queued behind it may run first.
    pub(super) fn polls(&self) -> bool {
        matches!(self.op.course(), Course::Watch(..) | Course::WatchMulti(..))
    }
}

/// What a multishot poll is told.
fn told(event: &Event, direction: Direction) -> i32 {
    let other = if event.other { NOT_ONLY_BYTES } else { 0 };
    (direction.event() | other) as i32
}

impl<S: Selector> ReadinessDriver<S> {
    pub(super) fn serve(&mut self, event: Event, batch: &mut Vec<Completion>) {
        if event.read && !event.write && !event.invalid && self.tell_watcher(&event, batch) {
            return;
        }
        if event.read {
            self.serve_one_way(&event, Direction::Read, batch);
        }
        if event.write {
            self.serve_one_way(&event, Direction::Write, batch);
        }
        if !event.invalid && self.fds[event.fd as usize].wanted(S::TELLS_EDGES).is_empty() {
            self.served.push(event.fd);
        } else {
            self.update_watch(event.fd);
        }
    }

    /// The case of a stream transport, told in a third of the instructions: one multishot poll waits to read, and nothing else.
    #[inline]
    fn tell_watcher(&mut self, event: &Event, batch: &mut Vec<Completion>) -> bool {
        let is_watcher = |waiter: &&Waiter| matches!(waiter.op.course(), Course::WatchMulti(..));
        let Some(&waiter) = self.fds[event.fd as usize].read.only().filter(is_watcher) else {
            return false;
        };
        let told = told(event, Direction::Read);
        self.more(&waiter, told, Flags::default(), 0, batch);
        true
    }

    /// Lets the ops that wait in one direction go on. Once an op that moves bytes has to wait, only polls go on.
    fn serve_one_way(&mut self, event: &Event, direction: Direction, batch: &mut Vec<Completion>) {
        let fd = event.fd;
        let mut index = 0;
        let mut blocked = false;
        while let Some(&waiter) = self.fds[fd as usize]
            .line(direction)
            .and_then(|line| line.get(index))
        {
            let step = if event.invalid {
                Step::Done(-libc::EBADF)
            } else if blocked && !waiter.polls() {
                Step::Waits
            } else {
                self.advance(&waiter, event, direction, batch)
            };
            if let Step::Waits = step {
                blocked |= !waiter.polls();
                index += 1;
                continue;
            }
            self.fds[fd as usize].line_mut(direction).remove(index);
            match step {
                Step::Done(result) => {
                    self.places.remove(waiter.token);
                    self.stats.complete(waiter.op.kind(), true);
                    batch.push(Completion::terminal(waiter.token, result));
                }
                _ => self.delegate(waiter.token, waiter.op),
            }
        }
    }

    fn more(&mut self, waiter: &Waiter, result: i32, flags: Flags, data: u32, batch: &mut Vec<Completion>) {
        self.stats.complete(waiter.op.kind(), false);
        batch.push(Completion {
            token: waiter.token,
            result,
            flags: flags | Flags::MORE,
            data,
        });
    }

    /// Lets one op take one step.
    fn advance(
        &mut self,
        waiter: &Waiter,
        event: &Event,
        direction: Direction,
        batch: &mut Vec<Completion>,
    ) -> Step {
        match waiter.op.course() {
            Course::Watch(..) => Step::Done(direction.event() as i32),
            Course::WatchMulti(..) => {
                self.more(waiter, told(event, direction), Flags::default(), 0, batch);
                Step::Waits
            }
            Course::Connect(fd) => {
                // The event may belong to a file that had this number before, so poll the socket itself.
                self.stats.syscalls += 2;
                match syscalls::poll_now(fd, libc::POLLOUT as u32) {
                    AGAIN => Step::Waits,
                    _ => Step::Done(syscalls::socket_error(fd)),
                }
            }
            Course::Splice { .. } => Step::Moved,
            Course::AcceptMulti(_) => self.accept(waiter, batch),
            Course::RecvMulti(fd) => self.receive(waiter, fd, batch),
            Course::Once(..)
            | Course::File(..)
            | Course::Blocking(_)
            | Course::Immediate(_)
            | Course::Close(_) => match self.attempt(&waiter.op) {
                AGAIN => Step::Waits,
                result => Step::Done(result),
            },
        }
    }

    /// Attempts an op in flight, or an op with memory of the engine.
    fn attempt(&mut self, op: &Op) -> i32 {
        // SAFETY: the memory of an op in flight is valid (contract of `Driver::submit`).
        unsafe { op.attempt_counted(&mut self.stats.syscalls) }
    }

    fn accept(&mut self, waiter: &Waiter, batch: &mut Vec<Completion>) -> Step {
        let mut failures = 0;
        for _ in 0..ACCEPTS {
            match self.attempt(&waiter.op) {
                AGAIN => return Step::Waits,
                error if is_transient(error) => {
                    failures += 1;
                    if failures == FAILURES {
                        return Step::Done(error);
                    }
                }
                error if error < 0 => return Step::Done(error),
                accepted => {
                    failures = 0;
                    self.more(waiter, accepted, Flags::default(), 0, batch);
                }
            }
        }
        Step::Waits
    }

    fn receive(&mut self, waiter: &Waiter, fd: RawFd, batch: &mut Vec<Completion>) -> Step {
        let Some(room) = self.arena.room() else {
            // The selector is level-triggered: the next wait reports the fd again, and begins with it.
            if self.resume_at.is_none() {
                self.resume_at = Some(fd);
                self.stats.buffer_exhaustions += 1;
            }
            return Step::Waits;
        };
        let len = room.len();
        let recv = Recv {
            fd,
            buf: room.as_mut_ptr(),
            len,
            flags: 0,
        };
        match self.attempt(&recv.into()) {
            AGAIN => Step::Waits,
            end if end <= 0 => Step::Done(end),
            count => {
                let full = if count as usize == len {
                    Flags::FULL
                } else {
                    Flags::default()
                };
                let position = self.arena.take(count as usize);
                self.more(waiter, count, Flags::DATA | full, position, batch);
                Step::Waits
            }
        }
    }
}
