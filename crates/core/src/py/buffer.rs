//! The memory of a bytes-like object that the program passes: any C-contiguous object, whatever its items are. PyO3's
//! `PyBuffer<u8>` accepts only items of one byte in a format that it knows; `array('i')` and ctypes arrays do not have one.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::ending::interpreter_ends;
use crate::py::make::py_error;

/// An exported buffer: Python neither frees nor moves its memory until this is dropped. The structure is on the heap, because
/// CPython keeps its address.
pub struct Buffer(Box<ffi::Py_buffer>);

// SAFETY: the export keeps the memory in place, whichever thread asks for it, and it is released with the GIL held.
unsafe impl Send for Buffer {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn get(object: &Bound<'_, PyAny>, flags: std::ffi::c_int) -> PyResult<Buffer> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: a live object and a structure to fill, which stays where it is.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Buffer(view))
    }

    /// Exports an object to read from it.
    ///
    /// # Errors
    /// `TypeError` for what is not bytes-like, `BufferError` for what is not contiguous.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        Buffer::get(object, ffi::PyBUF_SIMPLE)
    }

    /// Exports an object to write into it.
    ///
    /// # Errors
    /// `TypeError` for what is not bytes-like, read-only or not contiguous, as `socket.recv_into` has it.
    pub fn room(object: &Bound<'_, PyAny>) -> PyResult<Buffer> {
        match Buffer::get(object, ffi::PyBUF_WRITABLE) {
            Ok(buffer) if buffer.0.readonly == 0 => Ok(buffer),
            _ => Err(py_error::<PyTypeError>(format!(
                "a read-write bytes-like object is required, not {}",
                object.get_type().name()?.repr()?
            ))),
        }
    }

    pub fn ptr(&self) -> *mut u8 {
        self.0.buf.cast()
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.0.len.unsigned_abs()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !interpreter_ends() {
            // SAFETY: it was filled by `PyObject_GetBuffer`; whoever drops it is called by Python, with the GIL.
            unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
        }
    }
}
