//! `call_soon` and `call_soon_threadsafe`, by CPython's own calling convention (`py/native_method.rs`).

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::make::{name, py_error};
use crate::py::native_method::{self, Call, native_method};
use crate::reactor::scheduler::Scheduler;

/// The callback, its arguments, the context.
type Callback<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Option<Bound<'py, PyAny>>);

/// Sorts out the arguments of a call of `name`.
#[inline]
fn arguments<'py>(call: &Call<'py>, name: &str) -> PyResult<Callback<'py>> {
    let mut callback = (call.count() > 0).then(|| call.get(0)).flatten();
    let mut context = None;
    for (key, value) in call.named() {
        if key.is(name!("context").get(call.py())?) || key.eq(name!("context"))? {
            context = (!value.is_none()).then(|| value.clone());
        } else if callback.is_none() && key.eq(name!("callback"))? {
            callback = Some(value);
        } else {
            return Err(py_error::<PyTypeError>(format!(
                "{name}() got an unexpected keyword argument '{key}'"
            )));
        }
    }
    let callback = callback.ok_or_else(|| {
        py_error::<PyTypeError>(format!(
            "{name}() missing 1 required positional argument: 'callback'"
        ))
    })?;
    Ok((callback.clone(), call.rest(1)?, context))
}

/// The body of both methods.
#[inline]
fn soon(call: &Call<'_>, name: &str, threadsafe: bool) -> PyResult<Py<PyAny>> {
    let (callback, args, context) = arguments(call, name)?;
    // SAFETY: a method of this class.
    let scheduler = unsafe { call.object_of::<Scheduler>() };
    Scheduler::call_soon(scheduler, callback, args, context, threadsafe)
}

native_method!(call_soon, |call| soon(call, "call_soon", false));
native_method!(call_soon_threadsafe, |call| soon(
    call,
    "call_soon_threadsafe",
    true
));

/// Gives the class its two methods.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Scheduler>();
    native_method::add(
        &class,
        c"call_soon",
        call_soon,
        c"call_soon($self, /, callback, *args, context=None)\n--\n\nSchedules a callback for the next turn.",
    )?;
    native_method::add(
        &class,
        c"call_soon_threadsafe",
        call_soon_threadsafe,
        c"call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\nThe same from any thread, waking the loop if it sleeps.",
    )
}
