//! Completion emulated over readiness: an op is tried first, waits for its fd when it can't go on, and is tried again.
//!
//! Owns the ops that wait, by fd and direction, and what each fd is watched for. Interest stays registered while an op
//! waits; where watching costs a system call it also stays after the last op has gone, until an event finds nobody:
//! so a connection that is read again and again costs no `epoll_ctl`. Because the number may by then name another
//! file, every op that begins to wait renews the watch.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::driver::{Driver, Engine, Submitted};
use crate::fork::Generation;
use crate::op::{Completion, Direction, Flags, Op, OpKind, Token};
use crate::pool::Pool;
use crate::selector::{Interest, Ready, Selector};
use crate::stats::Stats;
use crate::syscalls::{self, AGAIN};
use crate::waker::Waker;

/// The most that one `RecvMulti` piece holds, in bytes.
const PIECE: usize = 64 * 1024;
/// Room for the pieces of one wait; fds that are ready beyond it are reported again by the next.
const ARENA: usize = 512 * 1024;
/// Connections accepted from one listener in one wait, so that a flood of them does not starve the others.
const ACCEPTS: usize = 64;

#[derive(Clone, Copy)]
struct Waiter {
    token: Token,
    op: Op,
}

#[derive(Default)]
struct FdState {
    watched: Interest,
    read: VecDeque<Waiter>,
    write: VecDeque<Waiter>,
}

impl FdState {
    fn queue(&mut self, direction: Direction) -> &mut VecDeque<Waiter> {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn wanted(&self) -> Interest {
        Interest {
            read: !self.read.is_empty(),
            write: !self.write.is_empty(),
        }
    }
}

/// Tokens are unique numbers already: spreading their bits is all the hashing they need.
#[derive(Default)]
pub(crate) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("tokens are u64")
    }
    fn write_u64(&mut self, token: u64) {
        self.0 = token.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20);
    }
}

pub(crate) type TokenMap<V> = HashMap<Token, V, BuildHasherDefault<TokenHasher>>;

/// Where an op in flight is.
enum Place {
    Waiting(RawFd, Direction),
    Pool(OpKind),
}

pub struct ReadinessDriver<S: Selector> {
    selector: S,
    fds: Vec<FdState>,
    places: TokenMap<Place>,
    /// Completions that came about outside `wait`.
    queued: VecDeque<Completion>,
    ready: Vec<Ready>,
    arena: Vec<u8>,
    used: usize,
    pool: Option<Pool>,
    waker: Waker,
    stats: Stats,
    generation: Generation,
}

impl<S: Selector> ReadinessDriver<S> {
    /// # Errors
    /// Where the wake-up event can't be made or watched: `EMFILE`, or `ERANGE` past `FD_SETSIZE`.
    pub fn new(mut selector: S) -> io::Result<ReadinessDriver<S>> {
        let waker = Waker::new()?;
        selector.watch(
            waker.fd(),
            Interest::default(),
            Interest {
                read: true,
                write: false,
            },
        )?;
        let engine = S::ENGINE.name();
        let stats = Stats::new(vec![format!(
            "regular files: {engine} can't wait for them; done by a pool of threads"
        )]);
        Ok(ReadinessDriver {
            selector,
            fds: Vec::new(),
            places: TokenMap::default(),
            queued: VecDeque::new(),
            ready: Vec::new(),
            arena: Vec::new(),
            used: 0,
            pool: None,
            waker,
            stats,
            generation: Generation::current(),
        })
    }

    fn pooled(&mut self, token: Token, op: Op) -> Submitted {
        let waker = &self.waker;
        let pool = self.pool.get_or_insert_with(|| Pool::new(waker.clone()));
        self.stats.submit(op.kind());
        self.places.insert(token, Place::Pool(op.kind()));
        // SAFETY: the contract of `Driver::submit`, passed on.
        unsafe { pool.submit(token, op) };
        Submitted::Pending
    }

    fn done(&mut self, op: &Op, result: i32) -> Submitted {
        self.stats.done_at_once(op.kind());
        Submitted::Ready(result)
    }

    /// Queues an op behind its fd and renews the watch.
    fn enqueue(&mut self, token: Token, op: Op, fd: RawFd, direction: Direction) -> Submitted {
        let Ok(index) = usize::try_from(fd) else {
            return self.done(&op, -libc::EBADF);
        };
        if self.fds.len() <= index {
            self.fds.resize_with(index + 1, FdState::default);
        }
        let state = &mut self.fds[index];
        state.queue(direction).push_back(Waiter { token, op });
        let wanted = if S::WATCH_IS_SYSCALL {
            union(state.watched, state.wanted())
        } else {
            state.wanted()
        };
        self.stats.syscalls += u64::from(S::WATCH_IS_SYSCALL);
        match self.selector.watch(fd, state.watched, wanted) {
            Ok(()) => {
                state.watched = wanted;
                self.stats.submit(op.kind());
                self.places.insert(token, Place::Waiting(fd, direction));
                Submitted::Pending
            }
            Err(error) => {
                state.queue(direction).pop_back();
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let on_file = matches!(
                    op,
                    Op::Read { .. } | Op::Readv { .. } | Op::Write { .. } | Op::Writev { .. }
                );
                if errno == libc::EPERM && on_file {
                    self.pooled(token, op)
                } else {
                    self.done(&op, -errno)
                }
            }
        }
    }

    /// Brings the watch of an fd in line with who waits, after events were served.
    fn settle(&mut self, fd: RawFd, seen: Interest) {
        let state = &mut self.fds[fd as usize];
        let wanted = state.wanted();
        let idle = (seen.read && !wanted.read && state.watched.read)
            || (seen.write && !wanted.write && state.watched.write);
        if state.watched != wanted && (idle || !S::WATCH_IS_SYSCALL) {
            self.stats.syscalls += u64::from(S::WATCH_IS_SYSCALL);
            // A failure means that the file is gone: nothing is left to watch.
            let _ = self.selector.watch(fd, state.watched, wanted);
            state.watched = wanted;
        }
    }

    fn finish(&mut self, waiter: &Waiter, result: i32, batch: &mut Vec<Completion>) {
        self.places.remove(&waiter.token);
        self.stats.complete(waiter.op.kind(), true);
        batch.push(Completion::terminal(waiter.token, result));
    }

    /// Lets the ops that wait in one direction go on, in their order, until one must wait again.
    fn serve(&mut self, fd: RawFd, direction: Direction, invalid: bool, batch: &mut Vec<Completion>) {
        while let Some(&waiter) = self.fds[fd as usize].queue(direction).front() {
            let result = if invalid {
                Some(-libc::EBADF)
            } else {
                self.advance(&waiter, direction, batch)
            };
            let Some(result) = result else { break };
            self.fds[fd as usize].queue(direction).pop_front();
            self.finish(&waiter, result, batch);
        }
    }

    /// One step of one op: its terminal result, or `None` while it goes on waiting.
    fn advance(&mut self, waiter: &Waiter, direction: Direction, batch: &mut Vec<Completion>) -> Option<i32> {
        let more = |result, flags, data| Completion {
            token: waiter.token,
            result,
            flags: flags | Flags::MORE,
            data,
        };
        let mask = if direction == Direction::Read {
            libc::POLLIN
        } else {
            libc::POLLOUT
        };
        match waiter.op {
            Op::Poll { .. } => Some(i32::from(mask)),
            Op::PollMulti { .. } => {
                self.stats.complete(OpKind::PollMulti, false);
                batch.push(more(i32::from(mask), Flags::default(), 0));
                None
            }
            Op::Connect { fd, .. } => Some(syscalls::socket_error(fd)),
            Op::AcceptMulti { .. } => {
                for _ in 0..ACCEPTS {
                    self.stats.syscalls += 1;
                    // SAFETY: an accept points at no memory.
                    match unsafe { syscalls::attempt(&waiter.op) } {
                        AGAIN => return None,
                        error if is_transient_accept_error(error) => {}
                        error if error < 0 => return Some(error),
                        accepted => {
                            self.stats.complete(OpKind::AcceptMulti, false);
                            batch.push(more(accepted, Flags::default(), 0));
                        }
                    }
                }
                None
            }
            Op::RecvMulti { fd } => {
                if self.arena.is_empty() {
                    self.arena.resize(ARENA, 0);
                }
                let room = self.arena.len() - self.used;
                if room < PIECE {
                    // Level-triggered: the next wait reports the fd again.
                    self.stats.buffer_exhaustions += 1;
                    return None;
                }
                let buf = self.arena[self.used..].as_mut_ptr();
                self.stats.syscalls += 1;
                // SAFETY: PIECE bytes of the arena are free behind `used`.
                match unsafe {
                    syscalls::attempt(&Op::Recv {
                        fd,
                        buf,
                        len: PIECE,
                        flags: 0,
                    })
                } {
                    AGAIN => None,
                    end if end <= 0 => Some(end),
                    count => {
                        let full = if count as usize == PIECE {
                            Flags::FULL
                        } else {
                            Flags::default()
                        };
                        self.stats.complete(OpKind::RecvMulti, false);
                        batch.push(more(count, Flags::DATA | full, self.used as u32));
                        self.used += count as usize;
                        None
                    }
                }
            }
            ref op => {
                self.stats.syscalls += 1;
                // SAFETY: the op is in flight, so its memory is valid (contract of `Driver::submit`).
                match unsafe { syscalls::attempt(op) } {
                    AGAIN => None,
                    result => Some(result),
                }
            }
        }
    }

    fn cancel_waiter(&mut self, token: Token, fd: RawFd, direction: Direction) {
        let queue = self.fds[fd as usize].queue(direction);
        let Some(index) = queue.iter().position(|waiter| waiter.token == token) else {
            return;
        };
        let Some(waiter) = queue.remove(index) else { return };
        self.places.remove(&token);
        self.stats.complete(waiter.op.kind(), true);
        self.queued
            .push_back(Completion::terminal(token, -libc::ECANCELED));
    }

    /// Ends everything that waits for an fd, and forgets the fd.
    fn abandon(&mut self, fd: RawFd) {
        let Some(state) = usize::try_from(fd).ok().and_then(|index| self.fds.get_mut(index)) else {
            return;
        };
        let watched = std::mem::take(&mut state.watched);
        let waiters: Vec<Token> = state
            .read
            .iter()
            .chain(&state.write)
            .map(|waiter| waiter.token)
            .collect();
        for token in waiters {
            if let Some(&Place::Waiting(fd, direction)) = self.places.get(&token) {
                self.cancel_waiter(token, fd, direction);
            }
        }
        // epoll forgets a closed file by itself, unless a duplicate keeps it open.
        if !watched.is_empty() {
            self.stats.syscalls += u64::from(S::WATCH_IS_SYSCALL);
            let _ = self.selector.watch(fd, watched, Interest::default());
        }
    }

    fn collect(&mut self, batch: &mut Vec<Completion>) {
        batch.extend(self.queued.drain(..));
        let (places, stats) = (&mut self.places, &mut self.stats);
        if let Some(pool) = &mut self.pool {
            pool.finished(|token, result| {
                if let Some(Place::Pool(kind)) = places.remove(&token) {
                    stats.complete(kind, true);
                    batch.push(Completion::terminal(token, result));
                }
            });
        }
    }
}

fn union(a: Interest, b: Interest) -> Interest {
    Interest {
        read: a.read || b.read,
        write: a.write || b.write,
    }
}

/// A connection that died while it waited to be accepted: accept(2), "Error handling".
pub(crate) fn is_transient_accept_error(error: i32) -> bool {
    matches!(
        -error,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EINTR
    )
}

impl<S: Selector> Driver for ReadinessDriver<S> {
    fn engine(&self) -> Engine {
        S::ENGINE
    }

    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted {
        if let Op::Close { fd } = op {
            self.abandon(fd);
        }
        let Some((fd, direction)) = op.waits_on() else {
            if matches!(op, Op::Close { .. } | Op::Shutdown { .. }) {
                self.stats.syscalls += 1;
                // SAFETY: neither points at memory, and neither waits.
                let result = unsafe { syscalls::block(&op) };
                return self.done(&op, result);
            }
            return self.pooled(token, op);
        };
        let asks_first = !matches!(
            op,
            Op::AcceptMulti { .. } | Op::RecvMulti { .. } | Op::Poll { .. } | Op::PollMulti { .. }
        );
        let overtakes = self
            .fds
            .get_mut(fd.max(0) as usize)
            .is_some_and(|state| !state.queue(direction).is_empty());
        if asks_first && !overtakes {
            self.stats.syscalls += 1;
            // SAFETY: the contract of `submit`.
            let result = unsafe { syscalls::attempt(&op) };
            let waits = match op {
                Op::Connect { .. } => result == -libc::EINPROGRESS,
                _ => result == AGAIN,
            };
            if !waits {
                return self.done(&op, result);
            }
        }
        self.enqueue(token, op, fd, direction)
    }

    fn cancel(&mut self, token: Token, _kind: OpKind) {
        match self.places.get(&token) {
            Some(&Place::Waiting(fd, direction)) => {
                self.cancel_waiter(token, fd, direction);
                if !S::WATCH_IS_SYSCALL {
                    self.settle(fd, Interest::default());
                }
            }
            Some(&Place::Pool(kind)) if self.pool.as_mut().is_some_and(|pool| pool.cancel(token)) => {
                self.places.remove(&token);
                self.stats.complete(kind, true);
                self.queued
                    .push_back(Completion::terminal(token, -libc::ECANCELED));
            }
            _ => {}
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.generation.check()?;
        self.used = 0;
        let before = batch.len();
        self.collect(batch);
        let nothing_to_do = batch.len() == before && timeout != Some(Duration::ZERO);
        let sleeps = nothing_to_do && self.waker.fall_asleep();
        let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
        let mut ready = std::mem::take(&mut self.ready);
        self.stats.syscalls += 1;
        let begun = sleeps.then(Instant::now);
        let result = self.selector.wait(timeout, &mut |event| ready.push(event));
        if let Some(begun) = begun {
            self.stats.wait_ns += begun.elapsed().as_nanos() as u64;
        }
        self.waker.awake();
        for event in ready.drain(..) {
            if event.fd == self.waker.fd() {
                self.waker.drain();
            } else if (event.fd as usize) < self.fds.len() {
                if event.read {
                    self.serve(event.fd, Direction::Read, event.invalid, batch);
                }
                if event.write {
                    self.serve(event.fd, Direction::Write, event.invalid, batch);
                }
                self.settle(
                    event.fd,
                    Interest {
                        read: event.read,
                        write: event.write,
                    },
                );
            }
        }
        self.ready = ready;
        self.collect(batch);
        result
    }

    /// Ops are tried when they are submitted: nothing is queued.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn has_work(&self) -> Option<bool> {
        if self.queued.is_empty() { None } else { Some(true) }
    }

    fn data(&self, completion: &Completion) -> &[u8] {
        let start = completion.data as usize;
        &self.arena[start..start + completion.result as usize]
    }

    fn release(&mut self, _completion: &Completion) {}

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&mut self, _limit: Duration) -> usize {
        // Ops that wait are only entries of ours; those that a thread has begun end before the pool is gone.
        if self.generation.is_current() {
            self.pool = None;
        } else {
            std::mem::forget(self.pool.take());
        }
        self.fds.clear();
        self.places.clear();
        self.stats.in_flight = 0;
        0
    }
}
