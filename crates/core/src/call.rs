//! Calls into Python: in a context, with few arguments, without intermediate objects.

use pyo3::exceptions::{PyBaseException, PyKeyboardInterrupt, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::make::{Name, name, py_os_error};

/// A copy of the current `contextvars.Context`.
pub fn current_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()).map(Bound::unbind) }
}

/// Runs `body` inside a context.
#[inline]
pub fn in_context<'py, R>(
    py: Python<'py>,
    context: &Py<PyAny>,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<R> {
    // SAFETY: a context object (or anything else, which is answered with a TypeError).
    if unsafe { ffi::PyContext_Enter(context.as_ptr()) } < 0 {
        return Err(PyErr::fetch(py));
    }
    let result = body();
    // SAFETY: the context entered above; the calls in between are balanced.
    if unsafe { ffi::PyContext_Exit(context.as_ptr()) } < 0 {
        let error = PyErr::fetch(py);
        return result.and(Err(error));
    }
    result
}

/// `callable(*args)` by the shortest way that the callable has.
#[inline]
pub fn call_tuple<'py>(
    py: Python<'py>,
    callable: &Py<PyAny>,
    args: &Py<PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the tuple's items stay alive and in place while the tuple does, which the caller's borrow ensures.
    unsafe {
        let callable = callable.as_ptr();
        let result = match ffi::PyVectorcall_Function(callable) {
            Some(vectorcall) => {
                let count = ffi::PyTuple_GET_SIZE(args.as_ptr());
                let items = (*args.as_ptr().cast::<ffi::PyTupleObject>()).ob_item.as_ptr();
                vectorcall(callable, items, count as usize, std::ptr::null_mut())
            }
            None => ffi::PyObject_Call(callable, args.as_ptr(), std::ptr::null_mut()),
        };
        Bound::from_owned_ptr_or_err(py, result)
    }
}

/// `object.name(argument)`
#[inline]
pub fn method1<'py>(
    object: &Bound<'py, PyAny>,
    name: &'static Name,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let name = name.get(object.py())?;
    // SAFETY: three live objects; returns a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallMethodOneArg(object.as_ptr(), name.as_ptr(), argument.as_ptr());
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// `object.name()`
#[inline]
pub fn method0<'py>(object: &Bound<'py, PyAny>, name: &'static Name) -> PyResult<Bound<'py, PyAny>> {
    let name = name.get(object.py())?;
    // SAFETY: two live objects; returns a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallMethodNoArgs(object.as_ptr(), name.as_ptr());
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Of two things that were done one after the other, whatever became of the first: as with Python's `finally`, an
/// exception of the second is raised with that of the first as its context. What stops the loop goes before what does not.
pub fn one_after_other(py: Python<'_>, first: PyResult<()>, second: PyResult<()>) -> PyResult<()> {
    let (Err(first), Err(second)) = (&first, &second) else {
        return first.and(second);
    };
    let keeps = stops_the_loop(py, first) && !stops_the_loop(py, second);
    let (raised, context) = if keeps { (second, first) } else { (first, second) };
    let (raised, context) = (context.clone_ref(py), raised.clone_ref(py));
    let mut end = raised.value(py).clone().into_any();
    // To the end of the chain, which neither may be a part of already.
    loop {
        if end.is(context.value(py)) {
            return Err(raised);
        }
        let next = end.getattr(name!("__context__"))?;
        if next.is_none() {
            break;
        }
        end = next;
    }
    end.setattr(name!("__context__"), context.value(py))?;
    Err(raised)
}

/// The two exceptions that asyncio lets through the loop.
pub fn stops_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

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

/// The writable memory of a `bytes` that nobody but its maker has seen.
pub fn bytes_memory(bytes: &Bound<'_, PyBytes>) -> *mut u8 {
    // SAFETY: an exact bytes object.
    unsafe { ffi::PyBytes_AsString(bytes.as_ptr()).cast() }
}

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// Shortens a `bytes` in place; it must be the only reference.
pub fn shorten(bytes: Bound<'_, PyBytes>, len: usize) -> PyResult<Bound<'_, PyBytes>> {
    let py = bytes.py();
    let mut object = bytes.into_ptr();
    // SAFETY: the reference is ours alone (nobody was handed it yet), as resizing demands; on failure it is gone.
    unsafe {
        if _PyBytes_Resize(&raw mut object, len as ffi::Py_ssize_t) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked())
    }
}

/// An error as the exception object that handlers are given, its traceback in place.
pub fn exception(py: Python<'_>, error: &PyErr) -> Py<PyBaseException> {
    error.clone_ref(py).into_value(py)
}

/// Why a connection ends, until its protocol is told: as an exception, whose traceback the collector can follow (the
/// frames in it hold the protocol, which holds the transport).
pub type Reason = Option<Py<PyBaseException>>;

/// The exception for a result of `-errno`.
pub fn os_error(result: i32) -> PyErr {
    if result == -libc::ERANGE {
        // No socket call answers ERANGE: it is the select engine's word for an fd it can't watch.
        let message =
            "the fd is at or above FD_SETSIZE (1024), which select can't watch; use the poll or epoll engine";
        return py_os_error(libc::ERANGE, message);
    }
    py_os_error(-result, reason(-result))
}

/// The words for an errno, as `os.strerror` has them.
fn reason(errno: i32) -> String {
    let mut text = [0u8; 256];
    // SAFETY: a local buffer and its size (the XSI variant, which libc declares, writes a terminated string there).
    unsafe { libc::strerror_r(errno, text.as_mut_ptr().cast(), text.len()) };
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// The exception for an error of the standard library's, its errno kept.
pub fn io_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(errno) => os_error(-errno),
        None => error.into(),
    }
}
