//! The ready queue, and what can stand in it or wait for its time.

use std::collections::VecDeque;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::handle::Handle;
use crate::readers::Watch;
use crate::transport::datagram::DatagramTransport;

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
    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Ready::Native(handle) => handle.get().is_cancelled(),
            Ready::Watch(_) | Ready::Datagrams(_) => false,
            Ready::Debug(handle) => handle
                .bind(py)
                .getattr("_cancelled")
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

/// What is due, and handles that have run and can be filled again.
#[derive(Default)]
pub struct Queue {
    pub due: VecDeque<Ready>,
    pub spare: Vec<Py<Handle>>,
}

impl Queue {
    /// Exchanges what is due against `running`, which is empty, and keeps the handles that have run.
    #[inline]
    pub fn begin(&mut self, running: &mut VecDeque<Ready>, spare: &mut Vec<Py<Handle>>) {
        std::mem::swap(running, &mut self.due);
        self.spare.append(spare);
    }

    /// How many handles more would be kept.
    pub fn room(&self) -> usize {
        SPARE.saturating_sub(self.spare.len())
    }
}
