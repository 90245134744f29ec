//! The fds that a program's arguments name.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::prelude::*;

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

/// The fd of a socket at this moment; -1 once the socket is closed.
pub fn number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    socket.call_method0(name!("fileno"))?.extract()
}
