//! `bytes` objects: how they are made, filled and shortened, and how they are taken from what a program writes.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use crate::py::make::py_error;
use crate::py::unique::is_unique;

/// A `bytes` of `len` bytes whose content is not set yet.
pub fn uninit_bytes(py: Python<'_>, len: usize) -> PyResult<Bound<'_, PyBytes>> {
    let len = ffi::Py_ssize_t::try_from(len)?;
    // SAFETY: a null source leaves the content unset; new reference or null with an exception set.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len);
        Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked())
    }
}

/// A `bytes` of what is at `source`.
pub fn copy_bytes<'py>(py: Python<'py>, source: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = uninit_bytes(py, source.len())?;
    // SAFETY: a fresh object of just this length.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), bytes_memory(&bytes), source.len()) };
    Ok(bytes)
}

/// The writable memory of a `bytes` object. The caller has made it, and no other code has seen it yet.
pub fn bytes_memory(bytes: &Bound<'_, PyBytes>) -> *mut u8 {
    // SAFETY: an exact bytes object.
    unsafe { ffi::PyBytes_AsString(bytes.as_ptr()).cast() }
}

/// Puts other bytes, not more of them, into an object. It must be the only reference, so that nobody sees it change.
#[allow(
    deprecated,
    reason = "the hash belongs to the bytes that were there before, and has no other name"
)]
pub fn refill<'py>(bytes: Bound<'py, PyBytes>, source: &[u8]) -> Bound<'py, PyBytes> {
    let object = bytes.as_ptr().cast::<ffi::PyBytesObject>();
    let memory = bytes_memory(&bytes);
    // SAFETY: the object has room for as many bytes as it has now and a zero behind them. Its size does not tell how it is freed.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr(), memory, source.len());
        *memory.add(source.len()) = 0;
        (*object).ob_base.ob_size = source.len() as ffi::Py_ssize_t;
        (*object).ob_shash = -1;
    }
    bytes
}

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// Shortens a `bytes` in place; it must be the only reference. In a free-threaded Python only the thread that made the object can
/// do that, and any other gets a copy.
pub fn shorten(bytes: Bound<'_, PyBytes>, len: usize) -> PyResult<Bound<'_, PyBytes>> {
    let py = bytes.py();
    // SAFETY: a live object.
    if cfg!(all(Py_GIL_DISABLED, Py_3_14)) && !unsafe { is_unique(bytes.as_ptr()) } {
        return copy_bytes(py, &bytes.as_bytes()[..len]);
    }
    let mut object = bytes.into_ptr();
    // SAFETY: the reference is ours alone (nobody was handed it yet), as resizing demands; on failure it is gone.
    unsafe {
        if _PyBytes_Resize(&raw mut object, len as ffi::Py_ssize_t) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked())
    }
}

/// The immutable bytes of what a program writes: itself if it is `bytes`, else a snapshot.
pub fn snapshot<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
    {
        // SAFETY: returns a new exact bytes object, or null with an exception set.
        let bytes =
            unsafe { Bound::from_owned_ptr_or_err(data.py(), ffi::PyBytes_FromObject(data.as_ptr()))? };
        return Ok(bytes.cast_into()?);
    }
    let kind = data.get_type();
    let message = format!(
        "data argument must be a bytes-like object, not {}",
        kind.name()?.repr()?
    );
    Err(py_error::<PyTypeError>(message))
}

/// As [`snapshot`], for any bytes-like object: in asyncio `writelines` joins its pieces by `bytes.join`, which accepts more
/// types than `write`.
pub fn copied<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: a live object.
    if unsafe { ffi::PyObject_CheckBuffer(data.as_ptr()) } == 0 {
        return snapshot(data);
    }
    match data.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        // SAFETY: returns a new exact bytes object, or null with an exception set.
        Err(_) => unsafe {
            let made = ffi::PyBytes_FromObject(data.as_ptr());
            Ok(Bound::from_owned_ptr_or_err(data.py(), made)?.cast_into_unchecked())
        },
    }
}
