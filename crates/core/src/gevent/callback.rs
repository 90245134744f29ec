//! A function that the loop is to call soon: what `run_callback` returns.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::cell::SharedCell;
use crate::py::make::{Text, py_error};

pub struct Held {
    callback: Option<Py<PyAny>>,
    /// Kept until the callback has returned: a callback that is running counts as true, but is not pending.
    args: Option<Py<PyTuple>>,
}

/// A scheduled call, as `gevent._interfaces.ICallback`.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct GeventCallback {
    held: SharedCell<Held>,
}

impl GeventCallback {
    pub fn create(py: Python<'_>, callback: Py<PyAny>, args: Py<PyTuple>) -> PyResult<Py<GeventCallback>> {
        let held = Held {
            callback: Some(callback),
            args: Some(args),
        };
        Py::new(
            py,
            GeventCallback {
                held: SharedCell::new(held),
            },
        )
    }

    /// Takes the callback to call it. `None`: it was stopped.
    #[inline]
    pub fn begin(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyTuple>)> {
        let mut held = self.held.lock();
        let args = held.args.as_ref()?.clone_ref(py);
        Some((held.callback.take()?, args))
    }

    /// Called after the callback has returned, or to forget it.
    #[inline]
    pub fn finish(&self) {
        let mut held = self.held.lock();
        let old = (held.callback.take(), held.args.take());
        drop(held);
        // Dropping may run any code.
        drop(old);
    }
}

#[pymethods]
impl GeventCallback {
    fn stop(&self) {
        self.finish();
    }

    fn close(&self) {
        self.finish();
    }

    /// Whether the call has not begun yet.
    #[getter]
    fn pending(&self) -> bool {
        self.held.lock().callback.is_some()
    }

    #[getter]
    fn callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let held = self.held.lock();
        held.callback.as_ref().map(|callback| callback.clone_ref(py))
    }

    #[setter]
    fn set_callback(&self, callback: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(callback) = &callback
            && !callback.is_callable()
        {
            return Err(py_error::<PyTypeError>("callback must be callable"));
        }
        let old = std::mem::replace(&mut self.held.lock().callback, callback.map(Bound::unbind));
        drop(old);
        Ok(())
    }

    #[getter]
    fn args(&self, py: Python<'_>) -> Option<Py<PyTuple>> {
        let held = self.held.lock();
        held.args.as_ref().map(|args| args.clone_ref(py))
    }

    #[setter]
    fn set_args(&self, args: Option<Bound<'_, PyTuple>>) {
        let old = std::mem::replace(&mut self.held.lock().args, args.map(Bound::unbind));
        drop(old);
    }

    fn __bool__(&self) -> bool {
        self.held.lock().args.is_some()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Text<String>> {
        let py = slf.py();
        let (callback, args) = (slf.get().callback(py), slf.get().args(py));
        let mut text = format!("<callback at {:p}", slf.as_ptr());
        if callback.is_none() && args.is_none() {
            text.push_str(" stopped");
        }
        if let Some(callback) = callback {
            text += &format!(" pending callback={}", callback.bind(py).repr()?);
        }
        if let Some(args) = args {
            text += &format!(" args={}", args.bind(py).repr()?);
        }
        Ok(Text(text + ">"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.held.look() {
            Some(held) => {
                visit.call(&held.callback)?;
                visit.call(&held.args)
            }
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.finish();
    }
}
