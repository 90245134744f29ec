//! `call_soon` and `call_soon_threadsafe`, by CPython's own calling convention (`py/native_method.rs`).

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::make::{name, py_error, tuple_of};
use crate::py::native_method::{self, Convention};
use crate::reactor::scheduler::Scheduler;

/// The arguments of a call: the callback, its arguments, the context.
type Call<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Option<Bound<'py, PyAny>>);

/// Sorts out the arguments of a call of `name`.
///
/// # Safety
/// `args` are `positional` live objects, then one for each of the tuple `names` (or null), as CPython passes them.
#[inline]
unsafe fn arguments<'py>(
    py: Python<'py>,
    name: &str,
    args: *const *mut ffi::PyObject,
    positional: usize,
    names: *mut ffi::PyObject,
) -> PyResult<Call<'py>> {
    // SAFETY: as the caller promises; the references are borrowed and counted here.
    let at = |index: usize| unsafe { Bound::from_borrowed_ptr(py, *args.add(index)) };
    let (mut callback, mut context) = ((positional > 0).then(|| at(0)), None);
    if !names.is_null() {
        // SAFETY: a live tuple of strings.
        let names = unsafe { Bound::from_borrowed_ptr(py, names).cast_into_unchecked::<PyTuple>() };
        for (index, key) in names.iter_borrowed().enumerate() {
            let value = at(positional + index);
            if key.is(name!("context").get(py)?) || key.eq(name!("context"))? {
                context = (!value.is_none()).then_some(value);
            } else if callback.is_none() && key.eq(name!("callback"))? {
                callback = Some(value);
            } else {
                return Err(py_error::<PyTypeError>(format!(
                    "{name}() got an unexpected keyword argument '{}'",
                    key.to_owned()
                )));
            }
        }
    }
    let callback = callback.ok_or_else(|| {
        py_error::<PyTypeError>(format!(
            "{name}() missing 1 required positional argument: 'callback'"
        ))
    })?;
    // SAFETY: the arguments behind the first.
    let rest = unsafe { tuple_of(py, args.wrapping_add(1), positional.saturating_sub(1))? };
    Ok((callback, rest, context))
}

/// The body of both methods.
///
/// # Safety
/// As for [`arguments`]; `scheduler` is a live instance, which the method's descriptor has checked.
#[inline]
unsafe fn soon(
    scheduler: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    threadsafe: bool,
) -> *mut ffi::PyObject {
    let body = |py| {
        // SAFETY: the descriptor let only instances through.
        let scheduler = unsafe { Bound::from_borrowed_ptr(py, scheduler).cast_into_unchecked::<Scheduler>() };
        let name = if threadsafe {
            "call_soon_threadsafe"
        } else {
            "call_soon"
        };
        // SAFETY: the caller's promise. The count is never negative.
        let (callback, args, context) = unsafe { arguments(py, name, args, positional as usize, names)? };
        Scheduler::call_soon(&scheduler, callback, args, context, threadsafe)
    };
    // SAFETY: CPython has called this.
    unsafe { native_method::run(body) }
}

unsafe extern "C" fn call_soon(
    scheduler: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's calling convention.
    unsafe { soon(scheduler, args, positional, names, false) }
}

unsafe extern "C" fn call_soon_threadsafe(
    scheduler: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's calling convention.
    unsafe { soon(scheduler, args, positional, names, true) }
}

/// Gives the class its two methods.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Scheduler>();
    native_method::add(
        &class,
        c"call_soon",
        Convention::FastWithKeywords(call_soon),
        c"call_soon($self, /, callback, *args, context=None)\n--\n\nSchedules a callback for the next turn.",
    )?;
    native_method::add(
        &class,
        c"call_soon_threadsafe",
        Convention::FastWithKeywords(call_soon_threadsafe),
        c"call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\nThe same from any thread, waking the loop if it sleeps.",
    )
}
