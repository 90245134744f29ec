//! What native awaitables share that have the methods of a coroutine.

use std::ffi::CString;

use pyo3::exceptions::{PyBaseException, PyRuntimeWarning};
use pyo3::prelude::*;

use crate::py::call::method1;
use crate::py::ending::finalise;
use crate::py::make::name;

/// How a step of an awaitable ended.
pub enum Step {
    Finished(Py<PyAny>),
    /// What the task yields to its loop, to wait.
    Waits(Py<PyAny>),
}

/// The methods of a coroutine for a class that has two functions: `step`, and `end`, which ends it without a result and returns
/// the coroutine, if any, that runs in its place and is to end.
macro_rules! coroutine_methods {
    ($class:ident) => {
        #[pyo3::pymethods]
        impl $class {
            fn __await__(slf: Py<Self>) -> Py<Self> {
                slf
            }

            fn __iter__(slf: Py<Self>) -> Py<Self> {
                slf
            }

            fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
                match $class::step(slf)? {
                    $crate::py::coroutine::Step::Waits(yields) => Ok(Some(yields)),
                    $crate::py::coroutine::Step::Finished(value) => {
                        // PyO3's slot of `__next__` returns NULL for `None`, and so passes on the exception that is set. NULL
                        // without one is `StopIteration` of None.
                        if !value.is_none(slf.py()) {
                            $crate::py::make::set_stop_iteration(value.bind(slf.py()));
                        }
                        Ok(None)
                    }
                }
            }

            fn send(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
                let _ = value;
                match $class::step(slf)? {
                    $crate::py::coroutine::Step::Waits(yields) => Ok(yields),
                    $crate::py::coroutine::Step::Finished(value) => {
                        $crate::py::make::set_stop_iteration(value.bind(slf.py()));
                        Err(PyErr::fetch(slf.py()))
                    }
                }
            }

            #[pyo3(signature = (kind, value = None, traceback = None))]
            fn throw<'py>(
                slf: &Bound<'py, Self>,
                kind: Bound<'py, PyAny>,
                value: Option<Bound<'py, PyAny>>,
                traceback: Option<Bound<'py, PyAny>>,
            ) -> PyResult<Bound<'py, PyAny>> {
                let instead = $class::end(slf);
                $crate::py::coroutine::throw(instead, kind, value, traceback)
            }

            fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
                match $class::end(slf) {
                    Some(instead) => {
                        $crate::py::call::method0(&instead, $crate::py::make::name!("close")).map(drop)
                    }
                    None => Ok(()),
                }
            }
        }
    };
}
pub(crate) use coroutine_methods;

/// Raises the exception that the arguments of `throw` name: in the coroutine, or here.
pub fn throw<'py>(
    instead: Option<Bound<'py, PyAny>>,
    kind: Bound<'py, PyAny>,
    value: Option<Bound<'py, PyAny>>,
    traceback: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = kind.py();
    let error = match value {
        Some(value) if value.is_instance_of::<PyBaseException>() => value,
        Some(value) if !value.is_none() => kind.call1((value,))?,
        _ => kind,
    };
    let error = PyErr::from_value(error);
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        error.value(py).setattr(name!("__traceback__"), traceback)?;
    }
    match instead {
        Some(coroutine) => method1(&coroutine, name!("throw"), error.value(py)),
        None => Err(error),
    }
}

/// A step of a coroutine that runs in the place of an awaitable.
pub fn step_instead(coroutine: &Bound<'_, PyAny>) -> PyResult<Step> {
    let yielded = method1(
        coroutine,
        name!("send"),
        coroutine.py().None().bind(coroutine.py()),
    )?;
    Ok(Step::Waits(yielded.unbind()))
}

/// Warns, as Python does, of a coroutine that is freed before its first step.
pub fn never_awaited(name: &str) {
    finalise(|py| {
        let message = CString::new(format!("coroutine '{name}' was never awaited")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)
    });
}
