//! Futures that tasks have waited for, to be used again. To make one and to free it takes as many instructions as all else of a wait.
//!
//! They are asyncio's own, and refer to the loop: so they are kept only while the loop runs. From Python 3.15 on a future can't be
//! initialised twice, and none is kept.

use std::collections::VecDeque;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::unique::is_unique;

/// At most this many are kept (about 150 bytes each).
const SPARE: usize = 1024;

#[derive(Default)]
pub struct Futures {
    /// Those that were woken, the oldest first. The task of the newest may not have been woken yet.
    woken: VecDeque<Py<PyAny>>,
    /// `{"loop": loop}`, with which they are made.
    pub keywords: Option<Py<PyDict>>,
}

impl Futures {
    /// Keeps a future that is finished.
    pub fn keep(&mut self, future: Py<PyAny>) {
        // `is_unique` is never true on the free-threaded 3.13.
        let pays = !cfg!(any(Py_3_15, all(Py_GIL_DISABLED, not(Py_3_14))));
        if pays && self.woken.len() < SPARE {
            self.woken.push_back(future);
        }
    }

    /// A finished future that nobody else has.
    pub fn take<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let future = self.woken.pop_front()?;
        // SAFETY: a live object, and the reference is ours.
        if unsafe { is_unique(future.as_ptr()) } {
            return Some(future.into_bound(py));
        }
        self.woken.push_back(future);
        None
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.keywords)?;
        self.woken.iter().try_for_each(|future| visit.call(future))
    }
}
