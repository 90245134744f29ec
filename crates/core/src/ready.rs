//! What can stand in the ready queue.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::handle::Handle;

/// A callback that is due: one of ours, or in debug mode one of asyncio's (which knows where it was created).
pub enum Ready {
    Native(Py<Handle>),
    Debug(Py<PyAny>),
}

impl Ready {
    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Ready::Native(handle) => handle.get().is_cancelled(),
            Ready::Debug(handle) => {
                handle.bind(py).getattr("_cancelled").and_then(|flag| flag.is_truthy()).unwrap_or(false)
            }
        }
    }

    pub fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Ready::Native(handle) => handle.clone_ref(py).into_any(),
            Ready::Debug(handle) => handle.clone_ref(py),
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Ready::Native(handle) => visit.call(handle),
            Ready::Debug(handle) => visit.call(handle),
        }
    }
}
