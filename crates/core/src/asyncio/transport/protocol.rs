//! The protocol's side: its methods, called in the transport's context.

use std::sync::OnceLock;

use pyo3::PyClass;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::buffer::Buffer;
use crate::py::call::{in_context, method0, method1};
use crate::py::make::{Int, Name, name, py_error};

type DataReceived<T> = for<'py> fn(&Bound<'py, T>, &Bound<'py, PyBytes>) -> PyResult<()>;

/// A class of protocols whose `data_received` is called without Python in between.
struct Native {
    /// The address of the class, which is compared.
    class: usize,
    data_received: DataReceived<PyAny>,
}

/// There is one such class, the TLS transport. It is set from there, so that this file need not know it.
static NATIVE: OnceLock<Native> = OnceLock::new();

/// Sets the class of native protocols. It has no subclasses.
pub fn install<T: PyClass>(py: Python<'_>, data_received: DataReceived<T>) {
    let native = Native {
        class: T::type_object_raw(py) as usize,
        // SAFETY: the two types differ in what a reference points at, and such functions have one ABI
        // (https://doc.rust-lang.org/std/primitive.fn.html#abi-compatibility). The function is only ever given objects of its
        // class.
        data_received: unsafe { std::mem::transmute::<DataReceived<T>, DataReceived<PyAny>>(data_received) },
    };
    let _ = NATIVE.set(native);
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
        if let Some(native) = NATIVE.get()
            && self.protocol.get_type_ptr() as usize == native.class
        {
            let received = native.data_received;
            return in_context(self.py(), &self.context, || received(&self.protocol, data));
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
