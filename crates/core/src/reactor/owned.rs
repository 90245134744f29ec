//! Which thread has a loop, and what only that thread uses.
//!
//! ```text
//!             claim                            run
//!   nobody ──────────▶ a thread, for one call ──────▶ a thread, for as long as the loop runs
//!      ▲                        │     ▲                           │
//!      └────────────────────────┘     └───────────────────────────┘
//!               claim dropped                  claim dropped
//! ```
//!
//! A call that changes the loop, or what belongs to it, begins with a claim: before it changes anything, and until it returns. If the
//! loop runs in another thread the call is refused. Another call is waited for: it takes as long as a call does. A loop that
//! begins to run waits for such a call, too, so that its own thread finds everything whole and is never refused.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;

use crate::py::cell::{Guard, LoopCell, Waiting, this_thread, used_elsewhere};

/// Says that the thread runs the loop. Threads are even numbers.
const RUNS: usize = 1;

/// A value of a loop's, for the thread that has the loop.
pub struct Owned<T> {
    /// The thread that has the loop, perhaps with `RUNS`, or 0.
    owner: AtomicUsize,
    cell: LoopCell<T>,
}

/// The right to use the loop.
#[must_use = "the loop is only this thread's while the claim lives"]
pub struct Claim<'a> {
    owner: &'a AtomicUsize,
    /// What the owner is after this claim, if that changes.
    after: Option<usize>,
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(after) = self.after {
            self.owner.store(after, Ordering::Release);
        }
    }
}

impl<T> Owned<T> {
    pub fn new(value: T) -> Owned<T> {
        Owned {
            owner: AtomicUsize::new(0),
            cell: LoopCell::new(value),
        }
    }

    /// Whether the loop runs in another thread.
    #[inline]
    pub fn runs_elsewhere(&self) -> bool {
        let owner = self.owner.load(Ordering::Acquire);
        owner & RUNS != 0 && owner != this_thread() | RUNS
    }

    /// Whether this thread has the loop.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) & !RUNS == this_thread()
    }

    /// Whether the loop runs in this thread.
    #[inline]
    pub fn runs_here(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread() | RUNS
    }

    /// Claims the loop for a call.
    ///
    /// # Errors
    /// `RuntimeError` if the loop runs in another thread.
    #[inline]
    pub fn claim(&self) -> PyResult<Claim<'_>> {
        if self.is_mine() {
            return Ok(Claim {
                owner: &self.owner,
                after: None,
            });
        }
        self.take(this_thread())
    }

    /// Claims the loop to run it.
    ///
    /// # Errors
    /// `RuntimeError` if the loop runs in another thread, or if a call of another thread's does not end.
    pub fn run(&self) -> PyResult<Claim<'_>> {
        let thread = this_thread();
        let before = self.owner.load(Ordering::Relaxed);
        if before & !RUNS != thread {
            return self.take(thread | RUNS);
        }
        // Within a call, or within the loop itself.
        self.owner.store(thread | RUNS, Ordering::Relaxed);
        Ok(Claim {
            owner: &self.owner,
            after: Some(before),
        })
    }

    /// Claims the loop to run it, without a claim to drop: [`Owned::let_go`] ends it. Returns what to pass to that.
    ///
    /// # Errors
    /// As [`Owned::run`].
    pub fn take_over(&self) -> PyResult<usize> {
        let mut claim = self.run()?;
        Ok(claim.after.take().unwrap_or(0))
    }

    /// Ends what [`Owned::take_over`] began in this thread.
    pub fn let_go(&self, after: usize) {
        if self.is_mine() {
            self.owner.store(after, Ordering::Release);
        }
    }

    #[cold]
    fn take(&self, owner: usize) -> PyResult<Claim<'_>> {
        let mut waiting = Waiting::default();
        loop {
            let taken = self
                .owner
                .compare_exchange(0, owner, Ordering::Acquire, Ordering::Relaxed);
            match taken {
                Ok(_) => {
                    return Ok(Claim {
                        owner: &self.owner,
                        after: Some(0),
                    });
                }
                Err(other) if other & RUNS == 0 && waiting.goes_on() => {}
                Err(_) => return Err(used_elsewhere()),
            }
        }
    }

    /// The value, for as long as the guard lives.
    ///
    /// # Errors
    /// `RuntimeError` if the loop runs in another thread.
    #[inline]
    pub fn get(&self) -> PyResult<Guard<'_, T>> {
        let thread = this_thread();
        if self.owner.load(Ordering::Relaxed) & !RUNS == thread {
            return self.cell.get_as(thread);
        }
        self.get_unclaimed()
    }

    /// A loop may begin to run meanwhile, and then have the value for as long as it sleeps.
    #[cold]
    fn get_unclaimed(&self) -> PyResult<Guard<'_, T>> {
        let mut waiting = Waiting::default();
        loop {
            if self.runs_elsewhere() {
                return Err(used_elsewhere());
            }
            match self.cell.if_free() {
                Some(guard) => return Ok(guard),
                None if self.cell.is_mine() || !waiting.goes_on() => return Err(used_elsewhere()),
                None => {}
            }
        }
    }

    /// The value, unless another thread uses it. For what is not to fail: a finaliser, or a forked child.
    #[inline]
    pub fn if_free(&self) -> Option<Guard<'_, T>> {
        if self.runs_elsewhere() {
            return None;
        }
        self.cell.if_free()
    }

    /// As [`LoopCell::look`].
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.cell.look()
    }
}
