//! The fds that a program's arguments name.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::py::make::{name, py_error};

/// The error for an object that has no fd. An exception of another kind that `fileno()` raises is passed on.
fn invalid(object: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = object.py();
    let known = error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py);
    if known {
        py_error::<PyValueError>(format!("Invalid file object: {object:?}"))
    } else {
        error
    }
}

/// The fd that an argument of `add_reader` and its like names.
pub fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd: RawFd = match object.extract() {
        Ok(fd) => fd,
        Err(_) => object
            .call_method0(name!("fileno"))
            .and_then(|fd| fd.extract())
            .map_err(|error| invalid(object, error))?,
    };
    if fd < 0 {
        return Err(py_error::<PyValueError>(format!("Invalid file descriptor: {fd}")));
    }
    Ok(fd)
}

/// `socket.fileno()`
fn fileno(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    socket.call_method0(name!("fileno"))?.extract()
}

/// The fd of a socket of CPython's own, which has it behind the head of the object; -1 once the socket is closed.
///
/// # Safety
/// An instance of `_socket.socket`, and [`fd_is_behind_head`] is true.
#[inline]
pub unsafe fn fd_behind_head(socket: &Bound<'_, PyAny>) -> RawFd {
    // SAFETY: a number that lives as long as the object. Another thread may close the socket at this moment.
    unsafe {
        let place = socket.as_ptr().cast::<u8>().add(size_of::<ffi::PyObject>());
        AtomicI32::from_ptr(place.cast()).load(Ordering::Relaxed)
    }
}

/// Whether sockets of this Python have their fd where [`fd_behind_head`] reads it. `sample`: an instance of `_socket.socket`, open.
pub fn fd_is_behind_head(sample: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: a socket is larger than the head of an object by more than a number.
    Ok(fileno(sample)? == unsafe { fd_behind_head(sample) })
}

/// `socket.socket`, once a socket of this class was found as expected.
static PLAIN: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The fd of a socket at this moment; -1 once the socket is closed. Of a plain socket no method is called.
#[inline]
pub fn number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    match PLAIN.get(socket.py()) {
        // SAFETY: an instance of this class, and one was found as expected.
        Some(plain) if socket.get_type().is(plain) => Ok(unsafe { fd_behind_head(socket) }),
        Some(_) => fileno(socket),
        None => first_number(socket),
    }
}

#[cold]
fn first_number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let (py, fd) = (socket.py(), fileno(socket)?);
    let plain = py.import(name!("socket"))?.getattr(name!("socket"))?;
    // gevent may have put its own class there.
    let base = py.import(name!("_socket"))?.getattr(name!("socket"))?;
    if fd >= 0 && socket.get_type().is(&plain) && socket.is_instance(&base)? && fd_is_behind_head(socket)? {
        let _ = PLAIN.set(py, plain.cast_into::<PyType>()?.unbind());
    }
    Ok(fd)
}
