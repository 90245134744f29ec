//! What can stand in the ready queue, or wait for its time.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::handle::Handle;
use crate::readers::Watch;

/// A callback that is due: one of ours, or in debug mode one of asyncio's (which knows where it was created).
pub enum Ready {
    Native(Py<Handle>),
    Debug(Py<PyAny>),
    /// A watched fd is ready; its callback is asked for when the turn comes to it, for it may be gone by then.
    Watch(Py<Watch>),
}

impl Ready {
    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Ready::Native(handle) => handle.get().is_cancelled(),
            Ready::Watch(_) => false,
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
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Ready::Native(handle) => Handle::traverse(handle, visit),
            Ready::Debug(handle) => visit.call(handle),
            Ready::Watch(watch) => visit.call(watch),
        }
    }
}
