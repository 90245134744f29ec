//! Threads for ops that an engine can't do without blocking, such as ops on regular files, which have no readiness.
//!
//! The pool starts a thread when there is work and no thread is idle, up to a limit. A thread ends when it has been
//! idle for long or when the pool was dropped. A thread whose op is cancelled may hang for ever (a dead mount), so it no
//! longer counts: another one takes its place, and it ends when its call returns. Dropping the pool does not wait for threads: an op that has begun ends
//! by itself, in memory that its submitter keeps (`Driver::shutdown` tells whether there is any).

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::completion::Token;
use crate::cores::cores;
use crate::fork::Generation;
use crate::habit::{Habit, LOST};
use crate::ops::Op;
use crate::waker::Waker;

const MAX_THREADS: usize = 16;
/// The limit while ops wait that flush files. A file system flushes its journal once for all that wait for it, and they only wait: 64 tasks
/// that sync a file each did 1.4 times as many as with 16 threads. Reads gain nothing from more, and take a quarter more of CPU time.
const MAX_FLUSHING: usize = 64;
/// How many threads may hang in cancelled ops before such a thread counts like any other.
const MAX_LOST: usize = 128;
const IDLE: Duration = Duration::from_secs(10);

/// The threads of an engine's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCounts {
    /// Threads that work or wait for work.
    pub threads: usize,
    /// Those of them that carry out an op.
    pub busy: usize,
    /// Ops that no thread has begun.
    pub queued: usize,
    /// Threads beside those, whose op was cancelled and goes on.
    pub lost: usize,
    /// The most `threads`, but for ops that flush files.
    pub limit: usize,
}

impl PoolCounts {
    /// Of an engine that has not needed a thread yet.
    pub const NONE: PoolCounts = PoolCounts {
        threads: 0,
        busy: 0,
        queued: 0,
        lost: 0,
        limit: MAX_THREADS,
    };
}

/// For how long a thread that has flushed a file looks for the next op before it sleeps, if that has paid lately. A program that writes one
/// record after the other comes back within that time, and is spared the wake-up of a thread.
const SPIN: Duration = Duration::from_micros(50);

#[derive(Default)]
struct State {
    queue: VecDeque<(Token, Op)>,
    /// The ops that threads carry out, without those of lost threads.
    begun: Vec<Token>,
    done: Vec<(Token, i32)>,
    idle: usize,
    /// One of the idle threads spins.
    spins: bool,
    threads: usize,
    lost: usize,
    /// The engine to wake; `None` once the pool is dropped, so that a thread that is still running keeps no fd open.
    waker: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Tells the thread that spins that there is an op for it.
    called: AtomicBool,
    has_cores: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker can't panic while it holds the lock, so even a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to wake once the lock is released: an engine that is awake before would wait for the lock.
    #[must_use]
    fn deliver(state: &mut State, token: Token, op: &Op, result: i32) -> Option<Waker> {
        let waker = state.waker.clone();
        if waker.is_some() {
            state.done.push((token, result));
        } else {
            op.discard(result);
        }
        waker
    }
}

pub(crate) struct Pool {
    shared: Arc<Shared>,
    generation: Generation,
}

impl Pool {
    pub(crate) fn new(waker: Waker) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    waker: Some(waker),
                    ..State::default()
                }),
                work: Condvar::new(),
                called: AtomicBool::new(false),
                has_cores: cores() > 1,
            }),
            generation: Generation::current(),
        }
    }

    /// Queues an op. [`Pool::finished`] returns its result, and the waker is called when it is there.
    ///
    /// # Safety
    /// The contract of `Driver::submit`: the op's memory outlives the op.
    pub(crate) unsafe fn submit(&mut self, token: Token, op: Op) {
        let mut state = self.shared.lock();
        state.queue.push_back((token, op));
        if std::mem::take(&mut state.spins) {
            self.shared.called.store(true, Ordering::Release);
            return;
        }
        self.staff(state);
    }

    /// Has a thread look at the queue: an idle one, or a new one if too few are idle.
    fn staff(&self, mut state: MutexGuard<'_, State>) {
        let limit = match state.queue.back() {
            Some((_, op)) if flushes(op) => MAX_FLUSHING,
            _ => MAX_THREADS,
        };
        let short_of_threads = state.idle < state.queue.len() && state.threads < limit;
        if !short_of_threads {
            drop(state);
            self.shared.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new()
            .name("proact-pool".into())
            .spawn(move || work(&shared));
        if spawned.is_err() {
            let mut state = self.shared.lock();
            state.threads -= 1;
            // There is no thread at all, so this thread carries out the ops: a blocked loop is better than an op that
            // never completes.
            while state.threads == 0
                && let Some((token, op)) = state.queue.pop_front()
            {
                drop(state);
                // SAFETY: `Pool::submit`'s contract.
                let result = unsafe { op.block() };
                state = self.shared.lock();
                let waker = Shared::deliver(&mut state, token, &op, result);
                drop(state);
                waker.as_ref().map(Waker::wake);
                state = self.shared.lock();
            }
        }
    }

    /// Takes an op back if no thread has begun it. Returns whether it did. If one has, another thread takes that
    /// thread's place, unless the engine shuts down.
    pub(crate) fn cancel(&mut self, token: Token, shuts_down: bool) -> bool {
        let mut state = self.shared.lock();
        let before = state.queue.len();
        state.queue.retain(|(queued, _)| *queued != token);
        if state.queue.len() < before {
            return true;
        }
        if !shuts_down
            && state.lost < MAX_LOST
            && let Some(index) = state.begun.iter().position(|begun| *begun == token)
        {
            state.begun.swap_remove(index);
            state.threads -= 1;
            state.lost += 1;
            if !state.queue.is_empty() {
                self.staff(state);
            }
        }
        false
    }

    pub(crate) fn counts(&self) -> PoolCounts {
        let state = self.shared.lock();
        PoolCounts {
            threads: state.threads,
            busy: state.begun.len(),
            queued: state.queue.len(),
            lost: state.lost,
            limit: MAX_THREADS,
        }
    }

    /// Moves the results of finished ops out of the pool.
    pub(crate) fn finished(&mut self, into: &mut Vec<(Token, i32)>) {
        into.append(&mut self.shared.lock().done);
    }
}

fn flushes(op: &Op) -> bool {
    matches!(op, Op::Fsync(_) | Op::WriteFsync(_) | Op::AppendFsync(_))
}

fn work(shared: &Shared) {
    block_signals();
    let mut state = shared.lock();
    // The deadline stays the same while the thread is woken for work that another thread takes, so that such wake-ups
    // do not keep it alive.
    let mut deadline = Instant::now() + IDLE;
    let mut habit = Habit::new();
    loop {
        if let Some((token, op)) = state.queue.pop_front() {
            state.begun.push(token);
            drop(state);
            // SAFETY: `Pool::submit`'s contract: the op's memory lives until its completion is delivered.
            let result = unsafe { op.block() };
            state = shared.lock();
            let index = state.begun.iter().position(|begun| *begun == token);
            let waker = Shared::deliver(&mut state, token, &op, result);
            let Some(index) = index else {
                // The op was cancelled, and another thread has taken this one's place.
                state.lost -= 1;
                drop(state);
                waker.as_ref().map(Waker::wake);
                return;
            };
            state.begun.swap_remove(index);
            // Beside other ops a spin would take a core from those that wait for them.
            let is_alone = state.begun.is_empty() && state.queue.is_empty() && waker.is_some();
            let spins = is_alone && shared.has_cores && flushes(&op) && habit.spins();
            if spins {
                state.spins = true;
                state.idle += 1;
            }
            drop(state);
            waker.as_ref().map(Waker::wake);
            state = if spins {
                spin(shared, &mut habit)
            } else {
                shared.lock()
            };
            deadline = Instant::now() + IDLE;
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if state.waker.is_none() || left.is_zero() {
            break;
        }
        state.idle += 1;
        state = shared
            .work
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        state.idle -= 1;
    }
    state.threads -= 1;
}

/// Looks for an op without sleeping.
fn spin<'a>(shared: &'a Shared, habit: &mut Habit) -> MutexGuard<'a, State> {
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    let mut has_lost = false;
    while !shared.called.load(Ordering::Acquire) && last < SPIN && !has_lost {
        spin_loop();
        let now = begun.elapsed();
        has_lost = now - last > LOST;
        last = now;
    }
    let mut state = shared.lock();
    state.idle -= 1;
    // An op may have come since the last look.
    let paid = !std::mem::take(&mut state.spins);
    shared.called.store(false, Ordering::Relaxed);
    if has_lost {
        habit.sleep_for_long();
    } else {
        habit.learn(paid);
    }
    state
}

/// Blocks signals in pool threads: a signal has to interrupt the loop's wait, and would not if a pool thread handled
/// it.
fn block_signals() {
    // SAFETY: a local set, filled before it is used; the mask is this thread's own.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A forked child has none of the threads, and one of them may have held the lock during the fork.
        if !self.generation.is_current() {
            return;
        }
        let mut state = self.shared.lock();
        state.waker = None;
        state.queue.clear();
        drop(state);
        self.shared.work.notify_all();
    }
}
