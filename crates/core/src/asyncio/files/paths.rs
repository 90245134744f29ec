//! The paths that a program passes.

use std::ffi::CString;
use std::os::fd::RawFd;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::reactor::path_work::Path;

/// A path as the kernel takes it, of what `open()` takes as one: `str`, `bytes` or `PathLike`.
///
/// # Errors
/// `TypeError` for anything else, `ValueError` for a null byte.
pub fn encoded(path: &Bound<'_, PyAny>) -> PyResult<CString> {
    let mut made: *mut ffi::PyObject = std::ptr::null_mut();
    // SAFETY: a live object, and room for a new reference, which is set if the call succeeds.
    if unsafe { ffi::PyUnicode_FSConverter(path.as_ptr(), (&raw mut made).cast()) } == 0 {
        return Err(PyErr::fetch(path.py()));
    }
    // SAFETY: a new reference to a bytes object.
    let bytes = unsafe { Bound::from_owned_ptr(path.py(), made) };
    let bytes = bytes.cast_into::<PyBytes>()?;
    // It holds no null byte: the converter has checked that.
    Ok(CString::new(bytes.as_bytes())?)
}

/// A path relative to a directory, or to the current one.
pub fn path_at(path: &Bound<'_, PyAny>, dir: Option<RawFd>) -> PyResult<Path> {
    Ok(Path {
        dir: dir.unwrap_or(libc::AT_FDCWD),
        path: encoded(path)?,
        shown: path.clone().unbind(),
    })
}
