//! Completion emulated over readiness: an op is tried first, waits for its fd when it can't go on, and is tried again.
//!
//! Owns the ops that wait, by fd and direction. An fd is watched for just what waits: a `RecvMulti` or `PollMulti` waits
//! all its life, so a connection that is read again and again costs no `epoll_ctl`. Interest that outlived its op would
//! be a trap: the program may close the fd next, and after that a duplicate's file can't be removed by its number. An op
//! that begins to wait renews the watch, because the number may name another file than it did for the ops that wait
//! already. What happens at a submission: `submit.rs`; on an event: `serve.rs`.

mod arena;
mod serve;
mod submit;

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::completion::{Completion, Token};
use crate::driver::{Driver, Engine, Submitted};
use crate::fork::Generation;
use crate::ops::{Course, Direction, Op, splice_waits_on};
use crate::pool::Pool;
use crate::selector::{Interest, Ready, Selector};
use crate::stats::Stats;
use crate::syscalls::AGAIN;
use crate::tokens::TokenMap;
use crate::waker::Waker;
use arena::Arena;

#[derive(Clone, Copy)]
struct Waiter {
    token: Token,
    op: Op,
}

#[derive(Default)]
struct FdState {
    read: VecDeque<Waiter>,
    write: VecDeque<Waiter>,
    /// While ops of this fd are with the pool; sockets never have any, and need no more than a word for it.
    pooled: Option<Box<Pooled>>,
}

#[derive(Default)]
struct Pooled {
    tokens: Vec<Token>,
    /// A close that waits for them.
    closing: Option<(Token, Op)>,
}

impl FdState {
    fn queue(&mut self, direction: Direction) -> &mut VecDeque<Waiter> {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn push(&mut self, direction: Direction, waiter: Waiter) {
        let queue = self.queue(direction);
        if queue.capacity() == 0 {
            // Most fds never have a second one waiting each way.
            queue.reserve_exact(1);
        }
        queue.push_back(waiter);
    }

    fn is_closing(&self) -> bool {
        self.pooled
            .as_ref()
            .is_some_and(|pooled| pooled.closing.is_some())
    }

    fn wanted(&self) -> Interest {
        Interest {
            read: !self.read.is_empty(),
            write: !self.write.is_empty(),
        }
    }
}

/// An op that a pool thread carries out.
struct InPool {
    op: Op,
    cancelled: bool,
}

/// Where an op in flight is.
enum Place {
    Waiting(RawFd, Direction),
    Pool(Box<InPool>),
    Closing,
}

pub struct ReadinessDriver<S: Selector> {
    selector: S,
    fds: Vec<FdState>,
    places: TokenMap<Place>,
    /// Completions that came about outside `wait`.
    queued: VecDeque<Completion>,
    ready: Vec<Ready>,
    /// Where to begin with the next events: the fd that found the wait's receive memory used up.
    resume_at: Option<RawFd>,
    arena: Arena,
    pool: Option<Pool>,
    finished: Vec<(Token, i32)>,
    waker: Waker,
    /// Nobody takes the completions any more: fds in them are closed.
    discards: bool,
    stats: Stats,
    generation: Generation,
}

impl<S: Selector> ReadinessDriver<S> {
    /// # Errors
    /// Where the wake-up event can't be made or watched: `EMFILE`, or `ERANGE` past `FD_SETSIZE`.
    pub fn new(mut selector: S) -> io::Result<ReadinessDriver<S>> {
        let waker = Waker::new()?;
        let engine = S::ENGINE.name();
        let mut stats = Stats::new(vec![format!(
            "regular files: {engine} can't wait for them; done by a pool of threads"
        )]);
        let read = Interest {
            read: true,
            write: false,
        };
        selector.watch(waker.fd(), read, &mut stats)?;
        Ok(ReadinessDriver {
            selector,
            fds: Vec::new(),
            places: TokenMap::default(),
            queued: VecDeque::new(),
            ready: Vec::new(),
            resume_at: None,
            arena: Arena::default(),
            pool: None,
            finished: Vec::new(),
            waker,
            discards: false,
            stats,
            generation: Generation::current(),
        })
    }

    /// The state of an fd, made if need be; `None` for a number that is no open file (and could be any number).
    fn state(&mut self, fd: RawFd) -> Option<&mut FdState> {
        let index = usize::try_from(fd).ok()?;
        if self.fds.len() <= index {
            self.stats.syscalls += 1;
            // SAFETY: F_GETFD only reads the fd table.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return None;
            }
            self.fds.resize_with(index + 1, FdState::default);
        }
        Some(&mut self.fds[index])
    }

    /// Brings the watch of an fd in line with what waits.
    fn settle(&mut self, fd: RawFd) {
        let wanted = self.fds[fd as usize].wanted();
        if wanted != self.selector.watched(fd) && self.selector.watch(fd, wanted, &mut self.stats).is_err() {
            // The fd was closed behind our back: nothing will ever be reported to the ops that are left.
            self.end_waiters(fd, -libc::EBADF);
        }
    }

    /// Ends all ops that wait for an fd, which is watched no longer.
    fn end_waiters(&mut self, fd: RawFd, result: i32) {
        let state = &mut self.fds[fd as usize];
        let waiters: Vec<Waiter> = state.read.drain(..).chain(state.write.drain(..)).collect();
        self.settle(fd);
        for waiter in waiters {
            self.end(waiter.token, waiter.op.kind(), result);
        }
    }

    fn cancel_waiter(&mut self, token: Token, fd: RawFd, direction: Direction) {
        let queue = self.fds[fd as usize].queue(direction);
        if let Some(index) = queue.iter().position(|waiter| waiter.token == token)
            && let Some(waiter) = queue.remove(index)
        {
            self.end(token, waiter.op.kind(), -libc::ECANCELED);
        }
    }

    /// Whether no thread had begun with it.
    fn cancel_pooled(&mut self, token: Token, op: Op) -> bool {
        if self.pool.as_mut().is_some_and(|pool| pool.cancel(token)) {
            self.end(token, op.kind(), -libc::ECANCELED);
            self.undelegate(token, &op);
            return true;
        }
        if let Some(Place::Pool(pooled)) = self.places.get_mut(&token) {
            pooled.cancelled = true;
        }
        false
    }

    /// Ends everything that waits for an fd, and forgets the fd.
    fn abandon(&mut self, fd: RawFd) {
        let Some(state) = usize::try_from(fd).ok().and_then(|index| self.fds.get_mut(index)) else {
            return;
        };
        let pooled: Vec<Token> = state
            .pooled
            .iter()
            .flat_map(|pooled| pooled.tokens.iter().copied())
            .collect();
        self.end_waiters(fd, -libc::ECANCELED);
        for token in pooled {
            self.cancel(token);
        }
    }

    /// A splice that can't go on waits for the side that is not ready, then goes back to the pool.
    fn splice_again(&mut self, token: Token, op: Op, from: RawFd, to: RawFd) {
        self.undelegate(token, &op);
        self.stats.syscalls += 2;
        match splice_waits_on(from, to) {
            None => self.delegate(token, op),
            Some((fd, direction)) => {
                if let Err(errno) = self.enqueue(token, op, fd, direction) {
                    self.end(token, op.kind(), -errno);
                }
            }
        }
    }

    /// Moves what has come about outside the selector into the batch.
    fn collect(&mut self, batch: &mut Vec<Completion>) {
        if let Some(pool) = &mut self.pool {
            let mut finished = std::mem::take(&mut self.finished);
            pool.finished(&mut finished);
            for (token, result) in finished.drain(..) {
                let Some(Place::Pool(pooled)) = self.places.get(&token) else {
                    continue;
                };
                let InPool { op, cancelled } = **pooled;
                self.stats.syscalls += 1;
                let result = match (result, op.course()) {
                    (AGAIN, Course::Splice { from, to }) if !cancelled => {
                        self.splice_again(token, op, from, to);
                        continue;
                    }
                    (AGAIN, Course::Splice { .. }) => -libc::ECANCELED,
                    _ => result,
                };
                if self.discards {
                    op.discard(result);
                }
                self.end(token, op.kind(), result);
                self.undelegate(token, &op);
            }
            self.finished = finished;
        }
        batch.extend(self.queued.drain(..));
    }
}

impl<S: Selector> Driver for ReadinessDriver<S> {
    fn engine(&self) -> Engine {
        S::ENGINE
    }

    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted {
        if !self.generation.is_current() {
            return Submitted::Ready(-libc::EOWNERDEAD);
        }
        // SAFETY: passed on.
        unsafe { self.begin(token, op) }
    }

    fn cancel(&mut self, token: Token) -> bool {
        if !self.generation.is_current() {
            return false;
        }
        match self.places.get(&token) {
            Some(&Place::Waiting(fd, direction)) => {
                self.cancel_waiter(token, fd, direction);
                self.settle(fd);
                true
            }
            Some(Place::Pool(pooled)) => self.cancel_pooled(token, pooled.op),
            // A close is carried out whatever happens, or the fd would leak.
            Some(Place::Closing) | None => false,
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.generation.check()?;
        self.arena.turn();
        let before = batch.len();
        self.collect(batch);
        let nothing_to_do = batch.len() == before && timeout != Some(Duration::ZERO);
        let sleeps = nothing_to_do && self.waker.fall_asleep();
        let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
        let mut ready = std::mem::take(&mut self.ready);
        let begun = sleeps.then(Instant::now);
        let result = self
            .selector
            .wait(timeout, &mut |event| ready.push(event), &mut self.stats);
        if let Some(begun) = begun {
            self.stats.wait_ns += begun.elapsed().as_nanos() as u64;
        }
        self.waker.awake();
        if let Some(fd) = self.resume_at.take()
            && let Some(index) = ready.iter().position(|event| event.fd == fd)
        {
            ready.rotate_left(index);
        }
        for event in ready.drain(..) {
            if event.fd == self.waker.fd() {
                self.stats.syscalls += 1;
                self.waker.drain();
            } else if (event.fd as usize) < self.fds.len() {
                self.serve(event, batch);
            }
        }
        self.ready = ready;
        self.collect(batch);
        result
    }

    /// Ops are tried when they are submitted: nothing is queued.
    fn flush(&mut self) -> io::Result<()> {
        self.generation.check()
    }

    fn forget(&mut self, fd: RawFd) {
        if self.generation.is_current() {
            self.abandon(fd);
        }
    }

    fn has_work(&self) -> Option<bool> {
        if self.queued.is_empty() { None } else { Some(true) }
    }

    fn data(&self, completion: &Completion) -> &[u8] {
        self.arena.data(completion)
    }

    fn release(&mut self, completion: &Completion) {
        self.arena.release(completion);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&mut self, limit: Duration) -> usize {
        if !self.generation.is_current() {
            // The threads are the parent's; what waits are only entries of ours.
            return 0;
        }
        self.discards = true;
        let tokens: Vec<Token> = self.places.keys().copied().collect();
        for token in tokens {
            self.cancel(token);
        }
        let deadline = Instant::now() + limit;
        let mut batch = Vec::new();
        loop {
            self.collect(&mut batch);
            batch.clear();
            let now = Instant::now();
            if self.places.is_empty() || now >= deadline {
                break;
            }
            if self.wait(Some(deadline - now), &mut batch).is_err() {
                break;
            }
        }
        self.discards = false;
        self.places.len()
    }
}
