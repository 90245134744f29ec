//! The exceptions for error numbers.

use pyo3::exceptions::PyOSError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::make::py_os_error;

/// The exception for a result of `-errno`.
pub fn os_error(result: i32) -> PyErr {
    if result == -libc::ERANGE {
        // No socket call returns ERANGE. The select engine uses it for an fd that it can't watch.
        let message =
            "the fd is at or above FD_SETSIZE (1024), which select can't watch; use the poll or epoll engine";
        return py_os_error(libc::ERANGE, message);
    }
    py_os_error(-result, reason(-result))
}

/// The exception for a result of `-errno`, with the names of the files, as `os` raises it.
pub fn file_error(py: Python<'_>, result: i32, names: &[Py<PyAny>]) -> PyErr {
    let reason = reason(-result);
    let name = |index: usize| names.get(index).map(|name| plain_path(py, name));
    match names.len() {
        2 => PyOSError::new_err((-result, reason, name(0), py.None(), name(1))),
        _ => PyOSError::new_err((-result, reason, name(0))),
    }
}

/// A path as the exceptions of `os` hold it: what `os.fspath` makes of it.
fn plain_path(py: Python<'_>, path: &Py<PyAny>) -> Py<PyAny> {
    // SAFETY: a live object.
    let made = unsafe { ffi::PyOS_FSPath(path.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) };
    made.map_or_else(|_| path.clone_ref(py), Bound::unbind)
}

/// The text of an errno, as `os.strerror` returns it.
fn reason(errno: i32) -> String {
    let mut text = [0u8; 256];
    // SAFETY: a local buffer and its size (the XSI variant, which libc declares, writes a terminated string there).
    unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The exception for a `std::io::Error`, with the same errno.
pub fn io_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(errno) => os_error(-errno),
        None => error.into(),
    }
}
