//! Schedules callbacks for the next turn, or for a time. In debug mode the loop above makes the handles.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::Scheduler;
use crate::py::call::current_context;
use crate::py::make::{Float, Name, py_error};
use crate::reactor::clock::nanoseconds;
use crate::reactor::handle::{Callback, Handle, TimerHandle};
use crate::reactor::ready::Ready;
use crate::reactor::threadsafe::{self, ThreadSafeHandle};

fn context_or_current(py: Python<'_>, context: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    match context {
        Some(context) => Ok(context.unbind()),
        None => current_context(py),
    }
}

impl Scheduler {
    fn push_timer(&self, when: f64, callback: Callback) {
        let mut timers = self.timers.lock();
        timers.push(nanoseconds(when), callback);
        self.timed.store(true, Ordering::Relaxed);
    }

    /// Schedules a native callback.
    #[inline]
    pub fn soon(
        &self,
        py: Python<'_>,
        callback: Py<PyAny>,
        args: Py<PyTuple>,
        context: Py<PyAny>,
    ) -> PyResult<Py<Handle>> {
        let mut ready = self.ready.lock();
        let handle = match ready.spare() {
            Some(handle) => {
                // SAFETY: a recycled handle, which nobody else has seen yet.
                unsafe { handle.get().refill(callback, args, context) };
                handle
            }
            None => {
                drop(ready);
                let handle = Handle::create(py, callback, args, context)?;
                ready = self.ready.lock();
                handle
            }
        };
        ready.push(Ready::Callback(Callback::Native(handle.clone_ref(py))));
        Ok(handle)
    }

    /// Schedules a method of an object for the next turn. The name is interned, because the type's method cache would keep a
    /// reference to any other string.
    pub fn method_soon(&self, object: &Bound<'_, PyAny>, method: &'static Name) -> PyResult<()> {
        let py = object.py();
        let callback = object.getattr(method)?.unbind();
        let args = PyTuple::empty(py).unbind();
        self.soon(py, callback, args, current_context(py)?).map(drop)
    }

    /// Schedules a callback for the next turn. `threadsafe`: the call may come from any thread, and wakes the loop.
    #[inline]
    pub fn call_soon(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
        threadsafe: bool,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_open()?;
        let handle = if this.is_debug() {
            let make = this.hooks()?.debug_handle.bind(py);
            let handle = make.call1((slf, callback, args, context, !threadsafe))?.unbind();
            this.push(Ready::Callback(Callback::Debug(handle.clone_ref(py))));
            handle
        } else {
            let context = context_or_current(py, context)?;
            let (callback, args) = (callback.unbind(), args.unbind());
            let handle = if threadsafe && threadsafe::EXPECTED {
                let handle = ThreadSafeHandle::create(py, Handle::new(callback, args, context))?;
                this.push(Ready::Callback(Callback::Shared(handle.clone_ref(py))));
                handle
            } else {
                this.soon(py, callback, args, context)?
            };
            handle.into_any()
        };
        if threadsafe {
            this.waker.wake();
        }
        Ok(handle)
    }

    fn schedule_at(
        slf: &Bound<'_, Self>,
        when: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_open()?;
        if this.is_debug() {
            let make = this.hooks()?.debug_timer.bind(py);
            let handle = make.call1((slf, Float(when), callback, args, context))?.unbind();
            this.push_timer(when, Callback::Debug(handle.clone_ref(py)));
            return Ok(handle);
        }
        let context = context_or_current(py, context)?;
        let handle = Handle::new(callback.unbind(), args.unbind(), context);
        let timer = TimerHandle::create(py, when, handle, this.cancelled.clone())?;
        let base = timer.bind(py).as_super().clone().unbind();
        this.push_timer(when, Callback::Native(base));
        Ok(timer.into_any())
    }
}

#[pymethods]
impl Scheduler {
    /// Schedules a callback `delay` seconds from now.
    #[pyo3(signature = (delay, callback, *args, context = None))]
    fn call_later(
        slf: &Bound<'_, Self>,
        delay: Option<f64>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let delay = delay.ok_or_else(|| py_error::<PyTypeError>("delay must not be None"))?;
        Scheduler::schedule_at(slf, slf.get().time().0 + delay, callback, args, context)
    }

    /// Schedules a callback for a time of the loop's clock, in seconds.
    #[pyo3(signature = (when, callback, *args, context = None))]
    fn call_at(
        slf: &Bound<'_, Self>,
        when: Option<f64>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let when = when.ok_or_else(|| py_error::<PyTypeError>("when cannot be None"))?;
        Scheduler::schedule_at(slf, when, callback, args, context)
    }
}
