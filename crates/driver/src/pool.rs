//! Threads for ops that an engine can't do without blocking, such as ops on regular files, which have no readiness.
//!
//! The pool starts a thread when there is work and no thread is idle, up to a limit. A thread ends when it has been
//! idle for long or when the pool was dropped. Dropping the pool does not wait for threads: an op that has begun ends
//! by itself, in memory that its submitter keeps (`Driver::shutdown` tells whether there is any).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::completion::Token;
use crate::fork::Generation;
use crate::ops::Op;
use crate::waker::Waker;

const MAX_THREADS: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    queue: VecDeque<(Token, Op)>,
    done: Vec<(Token, i32)>,
    idle: usize,
    threads: usize,
    /// The engine to wake; `None` once the pool is dropped, so that a thread that is still running keeps no fd open.
    waker: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker can't panic while it holds the lock, so even a poisoned state is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, state: &mut State, token: Token, op: &Op, result: i32) {
        match &state.waker {
            None => op.discard(result),
            Some(waker) => {
                state.done.push((token, result));
                waker.wake();
            }
        }
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
        let short_of_threads = state.idle < state.queue.len() && state.threads < MAX_THREADS;
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
            // There is no thread at all, so this thread carries out the op: a blocked loop is better than an op that
            // never completes.
            if state.threads == 0
                && let Some((token, op)) = state.queue.pop_back()
            {
                drop(state);
                // SAFETY: the caller's contract.
                let result = unsafe { op.block() };
                self.shared.deliver(&mut self.shared.lock(), token, &op, result);
            }
        }
    }

    /// Takes an op back if no thread has begun it. Returns whether it did.
    pub(crate) fn cancel(&mut self, token: Token) -> bool {
        let mut state = self.shared.lock();
        let before = state.queue.len();
        state.queue.retain(|(queued, _)| *queued != token);
        state.queue.len() < before
    }

    /// Moves the results of finished ops out of the pool.
    pub(crate) fn finished(&mut self, into: &mut Vec<(Token, i32)>) {
        into.append(&mut self.shared.lock().done);
    }
}

fn work(shared: &Shared) {
    block_signals();
    let mut state = shared.lock();
    // The deadline stays the same while the thread is woken for work that another thread takes, so that such wake-ups
    // do not keep it alive.
    let mut deadline = Instant::now() + IDLE;
    loop {
        if let Some((token, op)) = state.queue.pop_front() {
            drop(state);
            // SAFETY: `Pool::submit`'s contract: the op's memory lives until its completion is delivered.
            let result = unsafe { op.block() };
            state = shared.lock();
            shared.deliver(&mut state, token, &op, result);
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
