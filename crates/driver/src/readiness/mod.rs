//! Emulates completions over readiness: the engine tries an op first, waits for its fd if the op can't go on, and
//! tries it again. `submit.rs` handles submissions, `serve.rs` handles events.
//!
//! Owns the ops that wait, by fd and direction. The selector watches an fd for exactly the directions that ops wait
//! for. A `RecvMulti` or `PollMulti` waits all its life, so a connection that is read again and again costs no
//! `epoll_ctl`. The watch ends with its last op, because the program may close the fd next, and after that epoll
//! can't remove the file of a duplicate by the fd's number. If that op has gone on, the watch ends with the next wait
//! only: until then another op may need it. An op that begins to wait renews the watch, because the number may now
//! name another file than when the other waiting ops began.

mod arena;
mod line;
mod serve;
mod submit;

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::completion::{Completion, Token};
use crate::driver::{Driver, Submitted};
use crate::fork::Generation;
use crate::ops::{Course, Direction, Op, splice_waits_on};
use crate::pages::Pages;
use crate::pool::{Pool, PoolCounts};
use crate::selector::{Event, Interest, Selector};
use crate::stats::Stats;
use crate::syscalls::AGAIN;
use crate::tokens::TokenMap;
use crate::waker::Waker;
use arena::Arena;
use line::Line;

#[derive(Clone, Copy)]
struct Waiter {
    token: Token,
    op: Op,
}

/// What the engine keeps of an fd. Each idle connection costs this much.
#[derive(Default)]
struct FdState {
    read: Line,
    /// `None` until an op waits to write, which a connection seldom needs.
    write: Option<Box<Line>>,
    /// `Some` while the pool has ops of this fd. Sockets never have any, so the field is as small as a pointer.
    pooled: Option<Box<Pooled>>,
}

#[derive(Default)]
struct Pooled {
    tokens: Vec<Token>,
    /// A close that waits for these ops.
    closing: Option<(Token, Op)>,
}

impl FdState {
    fn line(&self, direction: Direction) -> Option<&Line> {
        match direction {
            Direction::Read => Some(&self.read),
            Direction::Write => self.write.as_deref(),
        }
    }

    /// The line to change; made if there is none.
    fn line_mut(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => self.write.get_or_insert_default(),
        }
    }

    fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        let write = self.write.iter().flat_map(|line| line.iter());
        self.read.iter().chain(write)
    }

    fn is_closing(&self) -> bool {
        self.pooled
            .as_ref()
            .is_some_and(|pooled| pooled.closing.is_some())
    }

    fn wanted(&self, tells_edges: bool) -> Interest {
        let wanted = Interest {
            read: !self.read.is_empty(),
            write: self.write.as_ref().is_some_and(|line| !line.is_empty()),
            edges: false,
        };
        Interest {
            edges: tells_edges && !wanted.is_empty() && self.waiters().all(Waiter::takes_edges),
            ..wanted
        }
    }
}

const _: () = assert!(size_of::<FdState>() <= 80);

/// An op that a pool thread carries out.
struct InPool {
    op: Op,
    cancelled: bool,
}

/// The place of an op in flight.
enum Place {
    Waiting(RawFd, Direction),
    Pool(Box<InPool>),
    Closing,
}

pub struct ReadinessDriver<S: Selector> {
    selector: S,
    fds: Pages<FdState>,
    places: TokenMap<Place>,
    /// Completions that happened outside `wait`.
    queued: VecDeque<Completion>,
    events: Vec<Event>,
    /// Fds whose ops have all gone on since the last wait.
    served: Vec<RawFd>,
    /// The fd that found the receive memory of a wait used up. The next wait begins with it.
    resume_at: Option<RawFd>,
    arena: Arena,
    pool: Option<Pool>,
    finished: Vec<(Token, i32)>,
    waker: Waker,
    /// The driver shuts down and nobody takes the completions: fds in them are closed.
    discards: bool,
    stats: Stats,
    generation: Generation,
}

impl<S: Selector> ReadinessDriver<S> {
    /// # Errors
    /// The errors of making and watching the wake-up event: `EMFILE`, or `ERANGE` for an fd past `FD_SETSIZE`.
    pub fn new(mut selector: S) -> io::Result<ReadinessDriver<S>> {
        let waker = Waker::new()?;
        let engine = S::ENGINE.name();
        let mut stats = Stats::new(vec![format!(
            "regular files ({engine} can't wait for them): done by a pool of threads"
        )]);
        let read = Interest {
            read: true,
            write: false,
            edges: false,
        };
        selector.watch(waker.fd(), read, &mut stats)?;
        Ok(ReadinessDriver {
            selector,
            fds: Pages::default(),
            places: TokenMap::default(),
            queued: VecDeque::new(),
            events: Vec::new(),
            served: Vec::new(),
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

    /// The state of an fd, created on first use. `None` for a number that is not open: it could be any number, and
    /// the table would have to grow up to it.
    fn state(&mut self, fd: RawFd) -> Option<&mut FdState> {
        let index = usize::try_from(fd).ok()?;
        if self.fds.len() <= index {
            self.stats.syscalls += 1;
            // SAFETY: F_GETFD only reads the fd table.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                return None;
            }
            self.fds.reach(index);
        }
        Some(&mut self.fds[index])
    }

    /// Watches an fd for exactly the directions that ops wait for.
    fn update_watch(&mut self, fd: RawFd) {
        let wanted = self.fds[fd as usize].wanted(S::TELLS_EDGES);
        if wanted != self.selector.watched(fd) && self.selector.watch(fd, wanted, &mut self.stats).is_err() {
            // The program has closed the fd without telling the engine, so the selector will report nothing to the
            // ops that are left.
            self.end_waiters(fd, -libc::EBADF);
        }
    }

    /// Stops watching the fds whose ops have gone on and that no other op waits for.
    fn end_watches(&mut self) {
        let mut served = std::mem::take(&mut self.served);
        for fd in served.drain(..) {
            self.update_watch(fd);
        }
        self.served = served;
    }

    /// Ends all ops that wait for an fd, and stops watching it.
    fn end_waiters(&mut self, fd: RawFd, result: i32) {
        let state = &mut self.fds[fd as usize];
        let waiters: Vec<Waiter> = state.waiters().copied().collect();
        (state.read, state.write) = (Line::default(), None);
        self.update_watch(fd);
        for waiter in waiters {
            self.end(waiter.token, waiter.op.kind(), result);
        }
    }

    fn cancel_waiter(&mut self, token: Token, fd: RawFd, direction: Direction) {
        let line = self.fds[fd as usize].line_mut(direction);
        let index = line.iter().position(|waiter| waiter.token == token);
        if let Some(waiter) = index.and_then(|index| line.remove(index)) {
            self.end(token, waiter.op.kind(), -libc::ECANCELED);
        }
    }

    /// Cancels an op of the pool. Returns whether no thread had begun it.
    fn cancel_pooled(&mut self, token: Token, op: Op) -> bool {
        let shuts_down = self.discards;
        if self
            .pool
            .as_mut()
            .is_some_and(|pool| pool.cancel(token, shuts_down))
        {
            self.end(token, op.kind(), -libc::ECANCELED);
            self.undelegate(token, &op);
            return true;
        }
        if let Some(Place::Pool(in_pool)) = self.places.get_mut(token) {
            in_pool.cancelled = true;
        }
        false
    }

    /// Cancels all ops of an fd, and stops watching it.
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

    /// Makes a splice that could not go on wait for the side that is not ready, or hands it to the pool again.
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

    /// Lets the selector wait for events. It sleeps only if it may and no wake-up has come.
    fn select(&mut self, timeout: Option<Duration>, may_sleep: bool) -> io::Result<()> {
        let sleeps = may_sleep && self.waker.fall_asleep();
        let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
        let begun = sleeps.then(Instant::now);
        let ReadinessDriver {
            selector,
            events,
            stats,
            ..
        } = self;
        let result = selector.wait(timeout, &mut |event| events.push(event), stats);
        if let Some(begun) = begun {
            self.stats.wait_ns += begun.elapsed().as_nanos() as u64;
        }
        result
    }

    /// Moves completions that did not come from the selector into the batch.
    fn collect(&mut self, batch: &mut Vec<Completion>) {
        if let Some(pool) = &mut self.pool {
            let mut finished = std::mem::take(&mut self.finished);
            pool.finished(&mut finished);
            for (token, result) in finished.drain(..) {
                let Some(Place::Pool(in_pool)) = self.places.get(token) else {
                    continue;
                };
                let InPool { op, cancelled } = **in_pool;
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
    fn name(&self) -> &'static str {
        S::ENGINE.name()
    }

    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted {
        if !self.generation.is_current() {
            return Submitted::Ready(-libc::EOWNERDEAD);
        }
        // SAFETY: the caller's contract.
        unsafe { self.begin(token, op) }
    }

    fn cancel(&mut self, token: Token) -> bool {
        if !self.generation.is_current() {
            return false;
        }
        match self.places.get(token) {
            Some(&Place::Waiting(fd, direction)) => {
                self.cancel_waiter(token, fd, direction);
                self.update_watch(fd);
                true
            }
            Some(Place::Pool(in_pool)) => self.cancel_pooled(token, in_pool.op),
            // A close can't be cancelled, because the fd would leak.
            Some(Place::Closing) | None => false,
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.generation.check()?;
        self.arena.turn();
        self.end_watches();
        let before = batch.len();
        self.collect(batch);
        let result = if self.events.is_empty() {
            let nothing_to_do = batch.len() == before && timeout != Some(Duration::ZERO);
            self.select(timeout, nothing_to_do)
        } else {
            // `look` has found them.
            Ok(())
        };
        self.waker.awake();
        let mut events = std::mem::take(&mut self.events);
        if let Some(fd) = self.resume_at.take()
            && let Some(index) = events.iter().position(|event| event.fd == fd)
        {
            events.rotate_left(index);
        }
        for event in events.drain(..) {
            if event.fd == self.waker.fd() {
                self.stats.syscalls += 1;
                self.waker.drain();
            } else if (event.fd as usize) < self.fds.len() {
                self.serve(event, batch);
            }
        }
        self.events = events;
        self.collect(batch);
        result
    }

    fn tells_edges(&self) -> bool {
        S::TELLS_EDGES
    }

    fn look(&mut self) -> io::Result<bool> {
        self.generation.check()?;
        if self.waker.is_notified() || !self.queued.is_empty() {
            return Ok(true);
        }
        if self.events.is_empty() {
            self.select(Some(Duration::ZERO), false)?;
        }
        Ok(!self.events.is_empty())
    }

    /// Does nothing: ops are tried when they are submitted, so none is queued.
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

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn pool(&self) -> PoolCounts {
        self.pool.as_ref().map_or(PoolCounts::NONE, Pool::counts)
    }

    fn shutdown(&mut self, limit: Duration) -> usize {
        if !self.generation.is_current() {
            // The pool's threads run in the parent, and the kernel holds no memory of waiting ops.
            return 0;
        }
        self.discards = true;
        let tokens: Vec<Token> = self.places.iter().map(|(token, _)| token).collect();
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
