//! Blocking threads for what a readiness engine can't do without blocking: regular files know no readiness.
//!
//! Threads start when there is work and none is idle, up to a limit, and end when idle for long or when the pool is
//! dropped (which waits for the work at hand: it may point at memory that is freed next).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::op::{Op, Token};
use crate::syscalls;
use crate::waker::Waker;

const MAX_THREADS: usize = 16;
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    queue: VecDeque<(Token, Op)>,
    done: Vec<(Token, i32)>,
    idle: usize,
    threads: usize,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    waker: Waker,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker can't panic while it holds the lock; a poisoned state is still a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new(waker: Waker) -> Pool {
        Pool {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                work: Condvar::new(),
                waker,
            }),
            threads: Vec::new(),
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
        let first = state.threads == 1;
        drop(state);
        let shared = self.shared.clone();
        match std::thread::Builder::new()
            .name("proact-pool".into())
            .spawn(move || work(&shared))
        {
            Ok(thread) => {
                self.threads.retain(|thread| !thread.is_finished());
                self.threads.push(thread);
            }
            Err(_) => {
                let mut state = self.shared.lock();
                state.threads -= 1;
                // With no thread at all the op is done here: late is better than never.
                let orphan = if first { state.queue.pop_back() } else { None };
                drop(state);
                if let Some((token, op)) = orphan {
                    // SAFETY: the caller's contract.
                    let result = unsafe { syscalls::block(&op) };
                    self.shared.lock().done.push((token, result));
                    self.shared.waker.wake();
                }
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
    pub(crate) fn finished(&mut self, mut each: impl FnMut(Token, i32)) {
        let done = std::mem::take(&mut self.shared.lock().done);
        for (token, result) in done {
            each(token, result);
        }
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some((token, op)) = state.queue.pop_front() {
            drop(state);
            // SAFETY: `Pool::submit`'s contract: the op's memory lives until its completion is delivered.
            let result = unsafe { syscalls::block(&op) };
            state = shared.lock();
            state.done.push((token, result));
            shared.waker.wake();
            continue;
        }
        if state.closed {
            break;
        }
        state.idle += 1;
        let (woken, timeout) = shared
            .work
            .wait_timeout(state, IDLE)
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if timeout.timed_out() && state.queue.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            state.queue.clear();
        }
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A forked child inherits the handle but not the thread; it never gets here (the owner is told so before).
            let _ = thread.join();
        }
    }
}
