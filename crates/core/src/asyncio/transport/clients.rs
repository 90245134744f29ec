//! The connections of a server: asyncio's `Server._clients` (Python 3.13), a set of weak references, at an eighth of its memory.
//!
//! A native transport is known by its address, and takes itself out before it is freed. Anything else is in the set that asyncio
//! made. Without the GIL asyncio's set stays: whether an object is about to be freed can't be seen there.

use std::collections::HashSet;

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList};

use super::stream::StreamTransport;
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
    others: Py<PyAny>,
}

impl Clients {
    /// A transport is freed, or no client any more. Returns whether it was one.
    pub fn forget(&self, transport: *const StreamTransport) -> bool {
        self.natives.lock().addresses.remove(&(transport as usize))
    }
}

#[pymethods]
impl Clients {
    #[new]
    fn new(others: Py<PyAny>) -> Clients {
        Clients {
            natives: SharedCell::new(Natives::default()),
            others,
        }
    }

    fn add(slf: &Bound<'_, Self>, client: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(transport) = client.cast_exact::<StreamTransport>() else {
            return slf
                .get()
                .others
                .call_method1(slf.py(), name!("add"), (client,))
                .map(drop);
        };
        if let Some(before) = transport.get().counted_by(Some(slf.clone().unbind()))?
            && !before.is(slf)
        {
            before.get().forget(transport.get());
        }
        let address = std::ptr::from_ref(transport.get()) as usize;
        let natives = &mut *slf.get().natives.lock();
        natives.offset = address - transport.as_ptr() as usize;
        natives.addresses.insert(address);
        Ok(())
    }

    fn discard(&self, client: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(transport) = client.cast_exact::<StreamTransport>() else {
            return self
                .others
                .call_method1(client.py(), name!("discard"), (client,))
                .map(drop);
        };
        if self.forget(transport.get()) {
            transport.get().counted_by(None)?;
        }
        Ok(())
    }

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

    fn __contains__(&self, client: &Bound<'_, PyAny>) -> PyResult<bool> {
        match client.cast_exact::<StreamTransport>() {
            Ok(transport) => {
                let address = std::ptr::from_ref(transport.get()) as usize;
                Ok(self.natives.lock().addresses.contains(&address))
            }
            Err(_) => self.others.bind(client.py()).contains(client),
        }
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.copy(py)?.try_iter()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.others)
    }
}
