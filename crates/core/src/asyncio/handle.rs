//! The `repr` of handles, which is that of asyncio's, and what `isinstance` sees: asyncio's classes, of another layout.

use pyo3::prelude::*;

use crate::py::make::{Name, Text, name};
use crate::reactor::handle::{Call, Handle, TimerHandle};
use crate::reactor::threadsafe::{self, ThreadSafeHandle};

impl Call {
    /// The callback as asyncio's messages show it.
    fn describe(&self, py: Python<'_>) -> String {
        let shown = py
            .import(name!("asyncio.format_helpers"))
            .and_then(|helpers| {
                helpers.call_method1(name!("_format_callback_source"), (&self.callback, &self.args))
            })
            .and_then(|shown| shown.extract());
        shown.unwrap_or_else(|_| "?".into())
    }
}

/// A class of `asyncio.events`.
fn class<'py>(py: Python<'py>, name: &'static Name) -> PyResult<Bound<'py, PyAny>> {
    py.import(name!("asyncio.events"))?.getattr(name)
}

#[pymethods]
impl TimerHandle {
    #[getter(__class__)]
    fn class(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        class(slf.py(), name!("TimerHandle")).map(Bound::unbind)
    }
}

#[pymethods]
impl ThreadSafeHandle {
    #[getter(__class__)]
    fn class(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let name = if threadsafe::EXPECTED {
            name!("_ThreadSafeHandle")
        } else {
            name!("Handle")
        };
        class(slf.py(), name).map(Bound::unbind)
    }
}

#[pymethods]
impl Handle {
    #[getter(__class__)]
    fn class(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        class(slf.py(), name!("Handle")).map(Bound::unbind)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Text<String>> {
        let name = slf.get_type().name()?;
        let this = slf.get();
        let state = match this.call(slf.py()) {
            Some(call) => call.describe(slf.py()),
            None if this.is_cancelled() => "cancelled".into(),
            None => "finished".into(),
        };
        Ok(Text(format!("<{name} {state}>")))
    }
}
