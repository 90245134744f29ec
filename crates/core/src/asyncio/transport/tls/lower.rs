//! The transport below a TLS transport: one of ours, called directly, or any other.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::asyncio::transport::stream::StreamTransport;
use crate::py::call::{exception, method1};
use crate::py::make::name;

pub enum Lower {
    Stream(Py<StreamTransport>),
    Other(Py<PyAny>),
}

impl Lower {
    pub fn new(transport: Bound<'_, PyAny>) -> Lower {
        match transport.cast_into_exact::<StreamTransport>() {
            Ok(stream) => Lower::Stream(stream.unbind()),
            Err(error) => Lower::Other(error.into_inner().unbind()),
        }
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Lower {
        match self {
            Lower::Stream(stream) => Lower::Stream(stream.clone_ref(py)),
            Lower::Other(other) => Lower::Other(other.clone_ref(py)),
        }
    }

    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        match self {
            Lower::Stream(stream) => stream.bind(py).as_any(),
            Lower::Other(other) => other.bind(py),
        }
    }

    #[inline]
    pub fn write(&self, data: Bound<'_, PyBytes>) -> PyResult<()> {
        let py = data.py();
        match self {
            Lower::Stream(stream) => StreamTransport::write_bytes(stream.bind(py), data),
            Lower::Other(other) => method1(other.bind(py), name!("write"), data.as_any()).map(drop),
        }
    }

    pub fn pause_reading(&self, py: Python<'_>, pause: bool) -> PyResult<()> {
        let method = if pause {
            name!("pause_reading")
        } else {
            name!("resume_reading")
        };
        self.bind(py).call_method0(method).map(drop)
    }

    pub fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.bind(py).call_method0(name!("close")).map(drop)
    }

    /// One of the connection's two addresses, if the transport is one of ours: asking it runs no code of a user's.
    pub fn address<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Lower::Stream(stream) => StreamTransport::get_extra_info(stream.bind(py), name, None),
            Lower::Other(_) => Ok(None),
        }
    }

    pub fn force_close(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        let error = error.map(|error| exception(py, error));
        self.bind(py)
            .call_method1(name!("_force_close"), (error,))
            .map(drop)
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Lower::Stream(stream) => visit.call(stream),
            Lower::Other(other) => visit.call(other),
        }
    }
}
