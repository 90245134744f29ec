//! The protocol's side: its methods, called in the transport's context.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::py::buffer::Buffer;
use crate::py::call::{in_context, method0, method1};
use crate::py::make::{Int, Name, name, py_error};

type DataReceived = for<'py> fn(&Bound<'py, PyAny>, &Bound<'py, PyBytes>) -> PyResult<()>;

/// A class of protocols whose `data_received` is called without Python in between.
struct Native {
    /// The address of the class, which is compared.
    class: usize,
    data_received: DataReceived,
}

/// The TLS transport, and asyncio's protocol of streams. They are set from there, so that this file need not know them.
static NATIVE: [OnceLock<Native>; 2] = [const { OnceLock::new() }; 2];

/// Adds a class of native protocols. The function is given objects of just this class.
pub fn install(class: &Bound<'_, PyType>, data_received: DataReceived) {
    let class = class.as_ptr() as usize;
    for place in &NATIVE {
        if place.get_or_init(|| Native { class, data_received }).class == class {
            return;
        }
    }
}

/// `protocol.data_received(data)`
#[inline]
pub fn data_received(protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
    let class = protocol.get_type_ptr() as usize;
    let mut known = NATIVE.iter().map_while(OnceLock::get);
    match known.find(|native| native.class == class) {
        Some(native) => (native.data_received)(protocol, data),
        None => method1(protocol, name!("data_received"), data.as_any()).map(drop),
    }
}

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
        in_context(self.py(), &self.context, || data_received(&self.protocol, data))
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
