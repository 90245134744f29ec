//! The protocol's side: its methods, called in the transport's context.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::tls::TLSTransport;
use crate::py::buffer::Buffer;
use crate::py::call::{in_context, method0, method1};
use crate::py::make::{Int, Name, name, py_error};

/// A protocol with the context that its methods run in.
pub struct Callee<'py> {
    pub protocol: Bound<'py, PyAny>,
    pub context: Py<PyAny>,
}

impl<'py> Callee<'py> {
    fn py(&self) -> Python<'py> {
        self.protocol.py()
    }

    pub fn call0(&self, name: &'static Name) -> PyResult<Bound<'py, PyAny>> {
        in_context(self.py(), &self.context, || method0(&self.protocol, name))
    }

    #[inline]
    pub fn call1(&self, name: &'static Name, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        in_context(self.py(), &self.context, || {
            method1(&self.protocol, name, argument)
        })
    }

    #[inline]
    pub fn data_received(&self, data: &Bound<'py, PyBytes>) -> PyResult<()> {
        if let Ok(tls) = self.protocol.cast_exact::<TLSTransport>() {
            return in_context(self.py(), &self.context, || TLSTransport::received(tls, data));
        }
        self.call1(name!("data_received"), data.as_any()).map(drop)
    }

    #[inline]
    pub fn datagram_received(
        &self,
        data: &Bound<'py, PyBytes>,
        from: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = name!("datagram_received");
        in_context(self.py(), &self.context, || {
            self.protocol.call_method1(name, (data, from))
        })
    }

    /// A writable buffer of the protocol's; never empty.
    pub fn get_buffer(&self, hint: isize) -> PyResult<Buffer> {
        let hint = Int::new(hint).into_pyobject(self.py())?;
        let buffer = self.call1(name!("get_buffer"), hint.as_any())?;
        let buffer = Buffer::room(&buffer)?;
        if buffer.len() == 0 {
            return Err(py_error::<PyRuntimeError>(
                "get_buffer() returned an empty buffer",
            ));
        }
        Ok(buffer)
    }

    pub fn buffer_updated(&self, count: usize) -> PyResult<()> {
        let count = Int::new(count).into_pyobject(self.py())?;
        self.call1(name!("buffer_updated"), count.as_any()).map(drop)
    }
}
