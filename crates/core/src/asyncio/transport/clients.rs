//! The connections of a server: asyncio's `Server._clients` (Python 3.13), a set of weak references, at a fifth of its memory.
//!
//! A native transport is known by its address, and takes itself out before it is freed. Anything else is in the set that asyncio
//! made. Without the GIL asyncio's set stays: whether an object is about to be freed can't be seen there.

use std::collections::HashSet;

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};

use crate::py::cell::SharedCell;
use crate::py::make::name;

#[derive(Default)]
struct Natives {
    /// Where the transports are, within their objects.
    addresses: HashSet<usize>,
    /// How far behind the beginning of its object a transport is.
    offset: usize,
}

/// What a server has for its connections in the place of a `WeakSet`.
#[pyclass(frozen, module = "proact._core")]
pub struct Clients {
    natives: SharedCell<Natives>,
    /// A `WeakSet`.
    pub others: Py<PyAny>,
}

impl Clients {
    pub fn of_others(others: Py<PyAny>) -> Clients {
        Clients {
            natives: SharedCell::new(Natives::default()),
            others,
        }
    }

    /// A native transport is a client: its address, and that of the object that it is in.
    pub fn insert(&self, address: usize, object: usize) {
        let natives = &mut *self.natives.lock();
        natives.offset = address - object;
        natives.addresses.insert(address);
    }

    pub fn has(&self, address: usize) -> bool {
        self.natives.lock().addresses.contains(&address)
    }

    /// A transport is freed, or no client any more. Returns whether it was one.
    pub fn forget(&self, address: usize) -> bool {
        self.natives.lock().addresses.remove(&address)
    }
}

#[pymethods]
impl Clients {
    /// All that live, as a list.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut alive: Vec<Bound<'py, PyAny>> = Vec::new();
        {
            let natives = self.natives.lock();
            for address in &natives.addresses {
                let object = (address - natives.offset) as *mut ffi::PyObject;
                // SAFETY: a transport takes itself out before its memory is freed, and this thread has the GIL. One whose last
                // reference is gone is left as it is: code that runs before it takes itself out may have asked.
                unsafe {
                    if ffi::Py_REFCNT(object) > 0 {
                        alive.push(Bound::from_borrowed_ptr(py, object));
                    }
                }
            }
        }
        let all = PyList::new(py, alive)?;
        all.call_method1(name!("extend"), (&self.others,))?;
        Ok(all)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let natives = self.natives.lock().addresses.len();
        Ok(natives + self.others.bind(py).len()?)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.others)
    }
}
