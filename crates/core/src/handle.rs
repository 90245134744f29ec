//! Handles: a callback with its arguments and context, scheduled once (`call_soon`), at a time, or per readiness.
//!
//! They are made and dropped once per callback, so the cycle collector does not track them: a handle that has run, or
//! was cancelled, or whose loop was closed, holds nothing that could be a cycle. Of those that wait, the scheduler
//! shows the collector what they hold (`Handle::traverse`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::call::{call_tuple, current_context, in_context};
use crate::cell::LoopCell;
use crate::timers::Cancelled;

struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

/// A scheduled callback, as `asyncio.Handle`.
#[pyclass(frozen, subclass, weakref, freelist = 512, module = "proact._core")]
pub struct Handle {
    call: LoopCell<Option<Call>>,
    context: Py<PyAny>,
    cancelled: AtomicBool,
}

impl Handle {
    pub fn new(callback: Py<PyAny>, args: Py<PyTuple>, context: Py<PyAny>) -> Handle {
        Handle {
            call: LoopCell::new(Some(Call { callback, args })),
            context,
            cancelled: AtomicBool::new(false),
        }
    }

    /// Calls back once, unless cancelled; afterwards the handle holds no callback. An error comes with the words that
    /// describe the callback.
    #[inline]
    pub fn run(&self, py: Python<'_>) -> Result<(), Failure> {
        match self.take() {
            Some(call) => self.invoke(py, &call),
            None => Ok(()),
        }
    }

    /// Calls back, unless cancelled, and can do so again.
    pub fn run_again(&self, py: Python<'_>) -> Result<(), Failure> {
        let call = self
            .call
            .try_get()
            .and_then(|call| call.as_ref().map(|call| call.clone_ref(py)));
        match call {
            Some(call) => self.invoke(py, &call),
            None => Ok(()),
        }
    }

    #[inline]
    fn invoke(&self, py: Python<'_>, call: &Call) -> Result<(), Failure> {
        let outcome = in_context(py, &self.context, || {
            call_tuple(py, &call.callback, &call.args).map(drop)
        });
        outcome.map_err(|error| Failure {
            shown: call.describe(py),
            error,
        })
    }

    /// The callback; the cell is free again when this returns.
    #[inline]
    fn take(&self) -> Option<Call> {
        self.call.try_get().and_then(|mut call| call.take())
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// True if it was waiting: neither cancelled nor run before.
    pub fn cancel_once(&self) -> bool {
        self.cancelled.store(true, Ordering::Relaxed);
        // What it held is dropped here, with the cell free: that may run any code.
        self.take().is_some()
    }

    /// What a waiting handle holds, for the collector, if nobody but the caller holds the handle.
    pub fn traverse(handle: &Py<Handle>, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: reads the count of a live object; no code runs while the collector looks.
        if unsafe { pyo3::ffi::Py_REFCNT(handle.as_ptr()) } != 1 {
            return Ok(());
        }
        let this = handle.get();
        visit.call(&this.context)?;
        if let Some(call) = this.call.try_get()
            && let Some(call) = &*call
        {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        Ok(())
    }
}

/// A callback raised: what, and which callback.
pub struct Failure {
    pub error: PyErr,
    pub shown: String,
}

impl Call {
    fn clone_ref(&self, py: Python<'_>) -> Call {
        Call {
            callback: self.callback.clone_ref(py),
            args: self.args.clone_ref(py),
        }
    }

    /// The callback as asyncio's messages show it.
    fn describe(&self, py: Python<'_>) -> String {
        let shown = py
            .import("asyncio.format_helpers")
            .and_then(|helpers| helpers.call_method1("_format_callback_source", (&self.callback, &self.args)))
            .and_then(|shown| shown.extract());
        shown.unwrap_or_else(|_| "?".into())
    }
}

#[pymethods]
impl Handle {
    /// A callback to be run in a copy of the current context.
    #[new]
    fn py_new(py: Python<'_>, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<Handle> {
        Ok(Handle::new(
            callback.unbind(),
            args.unbind(),
            current_context(py)?,
        ))
    }

    fn cancel(&self) {
        self.cancel_once();
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }

    fn get_context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let name = slf.get_type().name()?;
        let this = slf.get();
        let call = this
            .call
            .try_get()
            .and_then(|call| call.as_ref().map(|call| call.clone_ref(slf.py())));
        let state = match call {
            Some(call) => call.describe(slf.py()),
            None if this.is_cancelled() => "cancelled".into(),
            None => "finished".into(),
        };
        Ok(format!("<{name} {state}>"))
    }
}

/// A callback scheduled for a time, as `asyncio.TimerHandle`.
#[pyclass(frozen, extends = Handle, freelist = 512, module = "proact._core")]
pub struct TimerHandle {
    when: f64,
    cancelled: Arc<Cancelled>,
}

impl TimerHandle {
    pub fn create(
        py: Python<'_>,
        when: f64,
        handle: Handle,
        cancelled: Arc<Cancelled>,
    ) -> PyResult<Py<TimerHandle>> {
        Py::new(
            py,
            PyClassInitializer::from(handle).add_subclass(TimerHandle { when, cancelled }),
        )
    }
}

#[pymethods]
impl TimerHandle {
    /// The time it is due, in seconds of `loop.time()`.
    fn when(&self) -> f64 {
        self.when
    }

    fn cancel(slf: &Bound<'_, Self>) {
        if slf.as_super().get().cancel_once() {
            slf.get().cancelled.add();
        }
    }
}
