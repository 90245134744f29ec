//! Threads for what an engine can't do without blocking: regular files know no readiness.
//!
//! Threads start when there is work and none is idle, up to a limit, and end when idle for long or when the pool is
//! gone. A pool that is dropped waits for nobody: work that has begun ends by itself, in memory that its submitter
//! keeps (`Driver::shutdown` says whether there is any).

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
    /// Whom to tell; `None` once the pool is gone, so that a thread on its way out keeps no fd open.
    waker: Option<Waker>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker can't panic while it holds the lock; a poisoned state is still a whole one.
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

    /// Queues an op; its result comes out of [`Pool::finished`] and the waker is called.
    ///
    /// # Safety
    /// As `Driver::submit`: the op's memory outlives the op.
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
            // With no thread at all the op is done here: late is better than never.
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

    /// Takes an op back that no thread has begun.
    pub(crate) fn cancel(&mut self, token: Token) -> bool {
        let mut state = self.shared.lock();
        let before = state.queue.len();
        state.queue.retain(|(queued, _)| *queued != token);
        state.queue.len() < before
    }

    /// Moves the results that have come in out of the pool.
    pub(crate) fn finished(&mut self, into: &mut Vec<(Token, i32)>) {
        into.append(&mut self.shared.lock().done);
    }
}

fn work(shared: &Shared) {
    block_signals();
    let mut state = shared.lock();
    // An idle spell is one deadline, however often the thread is woken for work that another one takes.
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

/// Signals are for the threads of the program: one that landed here would interrupt nobody's wait.
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
        // A forked child has none of the threads, and the lock may be held by one of them for ever.
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
