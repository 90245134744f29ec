//! The ready queue, and its entries.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::cell::{Guard, SharedCell};
use crate::py::method::{Method, Once};
use crate::reactor::handle::{Callback, Handle};

/// An entry of the queue.
pub enum Ready {
    Callback(Callback),
    /// A function of a native object. It does its work itself, or returns the callback to call.
    Method(Method<Option<Callback>>),
    /// A greenlet whose wait is over.
    Once(Once),
}

impl Ready {
    pub fn clone_ref(&self, py: Python<'_>) -> Ready {
        match self {
            Ready::Callback(callback) => Ready::Callback(callback.clone_ref(py)),
            Ready::Method(method) => Ready::Method(method.clone_ref(py)),
            Ready::Once(once) => Ready::Once(once.clone_ref(py)),
        }
    }

    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Ready::Callback(callback) => callback.is_cancelled(py),
            Ready::Method(_) | Ready::Once(_) => false,
        }
    }

    /// Drops the callback of an entry that will not be called.
    pub fn discard(&self) {
        if let Ready::Callback(callback) = self {
            callback.discard();
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Ready::Callback(callback) => callback.traverse(visit),
            Ready::Method(method) => visit.call(method.object()),
            Ready::Once(once) => visit.call(once.object()),
        }
    }
}

/// At most this many handles are kept to be filled again (about 100 bytes each).
const SPARE: usize = 4096;

/// What is due, and handles that can be filled again. Any thread may add to it.
pub struct Queue {
    held: SharedCell<Held>,
    /// Whether anything is due: written with `held` locked, read without.
    waiting: AtomicBool,
}

#[derive(Default)]
struct Held {
    due: VecDeque<Ready>,
    /// What the current turn still has to run. A turn that runs within a callback goes on with it.
    running: VecDeque<Ready>,
    /// Handles that have run and have no other reference.
    spare: Vec<Py<Handle>>,
}

impl Held {
    fn iter(&self) -> impl Iterator<Item = &Ready> {
        self.running.iter().chain(&self.due)
    }
}

/// The locked queue. The lock is never held across a call into Python.
pub struct Locked<'a> {
    held: Guard<'a, Held>,
    waiting: &'a AtomicBool,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            held: SharedCell::new(Held::default()),
            waiting: AtomicBool::new(false),
        }
    }
}

impl Queue {
    #[inline]
    pub fn lock(&self) -> Locked<'_> {
        Locked {
            held: self.held.lock(),
            waiting: &self.waiting,
        }
    }

    /// Whether anything is due. Without the lock, an entry that another thread adds at this moment may be missed.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.held.look() {
            Some(held) => held.iter().try_for_each(|handle| handle.traverse(visit)),
            None => Ok(()),
        }
    }
}

impl Locked<'_> {
    #[inline]
    pub fn push(&mut self, handle: Ready) {
        self.held.due.push_back(handle);
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Puts what this turn has not run in front of all else.
    pub fn put_back(&mut self) {
        while let Some(ready) = self.held.running.pop_back() {
            self.held.due.push_front(ready);
            self.waiting.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.held.due.is_empty() && self.held.running.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Ready> {
        self.held.iter()
    }

    /// Takes a handle that can be filled.
    #[inline]
    pub fn spare(&mut self) -> Option<Py<Handle>> {
        self.held.spare.pop()
    }

    /// Begins a turn, which will run what is due now. Returns its first entry, as [`Locked::next`] does.
    #[inline]
    pub fn begin(&mut self, spare: Option<Py<Handle>>) -> Option<(Ready, bool)> {
        let Held { due, running, .. } = &mut *self.held;
        if running.is_empty() {
            std::mem::swap(running, due);
        } else {
            running.append(due);
        }
        self.waiting.store(false, Ordering::Relaxed);
        self.next(spare)
    }

    /// What the turn runs next, and whether that is the last entry. `spare`: the handle that ran before, if it can be filled
    /// again.
    #[inline]
    pub fn next(&mut self, spare: Option<Py<Handle>>) -> Option<(Ready, bool)> {
        if let Some(spare) = spare
            && self.held.spare.len() < SPARE
        {
            self.held.spare.push(spare);
        }
        let next = self.held.running.pop_front()?;
        Some((next, self.held.running.is_empty()))
    }

    /// What the turn runs next, if that is a greenlet's wait that `may` end now.
    #[inline]
    pub fn next_greenlet(&mut self, may: impl FnOnce(&Once) -> bool) -> Option<Once> {
        match self.held.running.front() {
            Some(Ready::Once(once)) if may(once) => {}
            _ => return None,
        }
        match self.held.running.pop_front() {
            Some(Ready::Once(once)) => Some(once),
            _ => None,
        }
    }

    /// Everything that is due, for a loop that closes.
    pub fn take(&mut self) -> VecDeque<Ready> {
        self.held.spare.clear();
        self.put_back();
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.held.due)
    }
}
