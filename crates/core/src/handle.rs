//! Handles: a callback with its arguments and context, scheduled once (`call_soon`), at a time, or per readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::call::{call, current_context, in_context};
use crate::timers::Cancelled;

struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

/// A scheduled callback, as `asyncio.Handle`.
#[pyclass(frozen, subclass, weakref, freelist = 512, module = "proact._core")]
pub struct Handle {
    call: Mutex<Option<Call>>,
    context: Py<PyAny>,
    cancelled: AtomicBool,
}

impl Handle {
    pub fn new(callback: Py<PyAny>, args: Py<PyTuple>, context: Py<PyAny>) -> Handle {
        Handle { call: Mutex::new(Some(Call { callback, args })), context, cancelled: AtomicBool::new(false) }
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyTuple>)> {
        self.call().as_ref().map(|call| (call.callback.clone_ref(py), call.args.clone_ref(py)))
    }

    /// Calls back, unless cancelled.
    #[inline]
    pub fn run(&self, py: Python<'_>) -> PyResult<()> {
        match self.parts(py) {
            Some((callback, args)) => in_context(py, &self.context, || call(py, &callback, &args).map(drop)),
            None => Ok(()),
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// True if it was not cancelled before.
    fn cancel_once(&self) -> bool {
        let first = !self.cancelled.swap(true, Ordering::Relaxed);
        let call = self.call().take();
        // Dropped here, outside the lock: it may run any code.
        drop(call);
        first
    }

    /// The callback as asyncio's messages show it.
    pub fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let Some((callback, args)) = self.parts(py) else { return Ok("cancelled".into()) };
        let helpers = py.import("asyncio.format_helpers")?;
        helpers.call_method1("_format_callback_source", (callback, args))?.extract()
    }
}

#[pymethods]
impl Handle {
    /// A callback to be run in a copy of the current context.
    #[new]
    fn py_new(py: Python<'_>, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<Handle> {
        Ok(Handle::new(callback.unbind(), args.unbind(), current_context(py)?))
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
        Ok(format!("<{name} {}>", slf.get().describe(slf.py())?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.context)?;
        // Held elsewhere: the object is in use, so the collector need not see through it this time.
        if let Ok(call) = self.call.try_lock()
            && let Some(call) = &*call
        {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.cancel_once();
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
        Py::new(py, PyClassInitializer::from(handle).add_subclass(TimerHandle { when, cancelled }))
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
