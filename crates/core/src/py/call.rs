//! Calls into Python: in a context, with few arguments, without intermediate objects.

use pyo3::exceptions::{PyBaseException, PyKeyboardInterrupt, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::make::{Name, name};

/// A copy of the current `contextvars.Context`.
pub fn current_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: returns a new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()).map(Bound::unbind) }
}

/// A copy of a `contextvars.Context`.
pub fn copy_context(py: Python<'_>, context: &Py<PyAny>) -> PyResult<Py<PyAny>> {
    // SAFETY: a context object (or anything else, which is answered with a TypeError); a new reference or null.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr())).map(Bound::unbind) }
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

/// `callable(*args)`, by the vectorcall protocol if the callable has it.
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

unsafe extern "C" {
    /// CPython's `PyObject_GetOptionalAttr` has this name before 3.13.
    #[cfg_attr(not(Py_3_13), link_name = "_PyObject_LookupAttr")]
    fn PyObject_GetOptionalAttr(
        object: *mut ffi::PyObject,
        name: *mut ffi::PyObject,
        value: *mut *mut ffi::PyObject,
    ) -> std::ffi::c_int;
}

/// `getattr(object, name, None)`. Where PyO3 makes an `AttributeError` and drops it, this makes none.
#[inline]
pub fn attribute<'py>(
    object: &Bound<'py, PyAny>,
    name: &'static Name,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let mut value = std::ptr::null_mut();
    // SAFETY: two live objects and a place for the value: a new reference, or null, and then -1 if an exception is set.
    unsafe {
        if PyObject_GetOptionalAttr(object.as_ptr(), name.get(py)?.as_ptr(), &raw mut value) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Bound::from_owned_ptr_or_opt(py, value))
    }
}

/// `getattr(object, name)` where the object itself most likely has the attribute: its dictionary is asked first, for a third of
/// the instructions.
#[inline]
pub fn own_attribute<'py>(object: &Bound<'py, PyAny>, name: &'static Name) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let mut value = std::ptr::null_mut();
    // SAFETY: live objects, and a place for the value. The dictionary is a new reference, or null with an exception; the value is
    // one, or null, and then -1 if an exception is set.
    unsafe {
        let dict = ffi::PyObject_GenericGetDict(object.as_ptr(), std::ptr::null_mut());
        let dict = Bound::from_owned_ptr_or_err(py, dict)?;
        let found = ffi::compat::PyDict_GetItemRef(dict.as_ptr(), name.get(py)?.as_ptr(), &raw mut value);
        match found {
            1 => Ok(Bound::from_owned_ptr(py, value)),
            0 => object.getattr(name),
            _ => Err(PyErr::fetch(py)),
        }
    }
}

/// The outcome of two steps of which the second was done even if the first failed. As with Python's `finally`, an exception of
/// the second step is raised, with the first one as its context. But an exception that stops the loop is raised before one
/// that does not.
pub fn one_after_other(py: Python<'_>, first: PyResult<()>, second: PyResult<()>) -> PyResult<()> {
    let (Err(first), Err(second)) = (&first, &second) else {
        return first.and(second);
    };
    let keeps = stops_the_loop(py, first) && !stops_the_loop(py, second);
    let (raised, context) = if keeps { (second, first) } else { (first, second) };
    let (raised, context) = (context.clone_ref(py), raised.clone_ref(py));
    let mut end = raised.value(py).clone().into_any();
    // Append at the end of the chain. If the other exception is in the chain already, appending would close a circle.
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

/// The exception object of an error, with its traceback, as handlers receive it.
pub fn exception(py: Python<'_>, error: &PyErr) -> Py<PyBaseException> {
    error.clone_ref(py).into_value(py)
}

/// Why a connection ends, kept until its protocol is told. It is an exception object so that the collector can follow its
/// traceback: the frames in it hold the protocol, and the protocol holds the transport.
pub type Reason = Option<Py<PyBaseException>>;
