//! The ready queue, and what can stand in it or wait for its time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::asyncio::transport::datagram::DatagramTransport;
use crate::py::cell::{Guard, LoopCell};
use crate::py::make::name;
use crate::reactor::handle::Handle;
use crate::reactor::watch::Watch;

/// A callback that is due: one of ours, or in debug mode one of asyncio's (which knows where it was created).
pub enum Ready {
    Native(Py<Handle>),
    Debug(Py<PyAny>),
    /// A watched fd is ready; its callback is asked for when the turn comes to it, for it may be gone by then.
    Watch(Py<Watch>),
    /// A datagram socket is readable: its transport takes what is there after what was scheduled before, as in asyncio.
    Datagrams(Py<DatagramTransport>),
}

impl Ready {
    pub fn clone_ref(&self, py: Python<'_>) -> Ready {
        match self {
            Ready::Native(handle) => Ready::Native(handle.clone_ref(py)),
            Ready::Debug(handle) => Ready::Debug(handle.clone_ref(py)),
            Ready::Watch(watch) => Ready::Watch(watch.clone_ref(py)),
            Ready::Datagrams(transport) => Ready::Datagrams(transport.clone_ref(py)),
        }
    }

    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Ready::Native(handle) => handle.get().is_cancelled(),
            Ready::Watch(_) | Ready::Datagrams(_) => false,
            Ready::Debug(handle) => handle
                .bind(py)
                .getattr(name!("_cancelled"))
                .and_then(|flag| flag.is_truthy())
                .unwrap_or(false),
        }
    }

    /// Called back for the last time, or never: it lets go of its callback.
    pub fn discard(&self) {
        if let Ready::Native(handle) = self {
            handle.get().cancel_once();
        }
    }

    pub fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Ready::Native(handle) => handle.clone_ref(py).into_any(),
            Ready::Debug(handle) => handle.clone_ref(py),
            Ready::Watch(watch) => watch.clone_ref(py).into_any(),
            Ready::Datagrams(transport) => transport.clone_ref(py).into_any(),
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Ready::Native(handle) => Handle::traverse(handle, visit),
            Ready::Debug(handle) => visit.call(handle),
            Ready::Watch(watch) => visit.call(watch),
            Ready::Datagrams(transport) => visit.call(transport),
        }
    }
}

/// At most this many handles are kept for the next callbacks (some 100 bytes each).
const SPARE: usize = 4096;

/// What is due, and handles that have run and can be filled again. Any thread may add to it.
pub struct Queue {
    held: LoopCell<Held>,
    /// Whether anything is due: written with `held` locked, read without.
    waiting: AtomicBool,
}

#[derive(Default)]
struct Held {
    due: VecDeque<Ready>,
    spare: Vec<Py<Handle>>,
}

/// The queue, for as long as the lock is held: never across a call into Python.
pub struct Locked<'a> {
    held: Guard<'a, Held>,
    waiting: &'a AtomicBool,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            held: LoopCell::new(Held::default()),
            waiting: AtomicBool::new(false),
        }
    }
}

impl Queue {
    #[inline]
    pub fn lock(&self) -> Locked<'_> {
        Locked {
            held: self.held.wait(),
            waiting: &self.waiting,
        }
    }

    /// True if something is due. What another thread adds at this moment may be missed; with the lock it is not.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.held.try_get() {
            Some(held) => held.due.iter().try_for_each(|handle| handle.traverse(visit)),
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

    pub fn extend(&mut self, handles: impl Iterator<Item = Ready>) {
        handles.for_each(|handle| self.push(handle));
    }

    /// What did not come to its turn goes before all else.
    pub fn put_back(&mut self, running: &mut VecDeque<Ready>) {
        while let Some(handle) = running.pop_back() {
            self.held.due.push_front(handle);
            self.waiting.store(true, Ordering::Relaxed);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.held.due.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Ready> {
        self.held.due.iter()
    }

    /// A handle that can be filled.
    #[inline]
    pub fn spare(&mut self) -> Option<Py<Handle>> {
        self.held.spare.pop()
    }

    /// Exchanges what is due against `running`, which is empty, and keeps the handles that have run. Returns how many
    /// more would be kept.
    #[inline]
    pub fn begin(&mut self, running: &mut VecDeque<Ready>, spare: &mut Vec<Py<Handle>>) -> usize {
        std::mem::swap(running, &mut self.held.due);
        self.waiting.store(false, Ordering::Relaxed);
        self.held.spare.append(spare);
        SPARE.saturating_sub(self.held.spare.len())
    }

    /// Everything that is due, for a loop that closes.
    pub fn take(&mut self) -> VecDeque<Ready> {
        self.waiting.store(false, Ordering::Relaxed);
        self.held.spare.clear();
        std::mem::take(&mut self.held.due)
    }
}
