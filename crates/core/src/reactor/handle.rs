//! Handles: a callback with its arguments and its context. It is called once (`call_soon`), at a time, or whenever an fd is
//! ready.
//!
//! A handle is made and dropped for each callback, so the cycle collector does not track it. That is sound: a handle that has
//! run, was cancelled, or whose loop was closed holds no callback and so closes no cycle. The content of a waiting handle is
//! shown to the collector by the scheduler (`Handle::traverse`). A handle that has run and has no other reference is used
//! again. A free-threaded Python (`uncollected.rs` says why) tracks handles as it tracks all objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::PyTraverseError;
use pyo3::PyTypeInfo;
use pyo3::ffi::{self, PyObject};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::call::{call_tuple, current_context, in_context};
use crate::py::cell::SharedCell;
use crate::py::make::{Float, name};
use crate::py::unique::is_unique;

/// What is called, and with what.
pub struct Call {
    pub callback: Py<PyAny>,
    pub args: Py<PyTuple>,
}

/// What a handle holds: the callback until it has run or is cancelled; the context for as long as the program may ask for it.
struct Held {
    call: Option<Call>,
    context: Option<Py<PyAny>>,
}

/// A scheduled callback, as `asyncio.Handle`.
#[pyclass(frozen, subclass, weakref, module = "proact._core")]
pub struct Handle {
    held: SharedCell<Held>,
    cancelled: AtomicBool,
}

impl Handle {
    /// Makes a handle as a Python object.
    pub fn create(
        py: Python<'_>,
        callback: Py<PyAny>,
        args: Py<PyTuple>,
        context: Py<PyAny>,
    ) -> PyResult<Py<Handle>> {
        Py::new(py, Handle::new(callback, args, context))
    }

    pub fn new(callback: Py<PyAny>, args: Py<PyTuple>, context: Py<PyAny>) -> Handle {
        Handle {
            held: SharedCell::new(Held {
                call: Some(Call { callback, args }),
                context: Some(context),
            }),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Empties a handle that has run or was cancelled, if there is no other reference to it. True: it can be filled again.
    pub fn recycle(handle: &Py<Handle>, py: Python<'_>) -> bool {
        let object = handle.as_ptr();
        // SAFETY: reads the count, the type and the list of weak references of a live object.
        let alone = unsafe {
            let kind = ffi::Py_TYPE(object);
            is_unique(object)
                && kind == Handle::type_object_raw(py)
                && (*object
                    .byte_offset((*kind).tp_weaklistoffset)
                    .cast::<*mut PyObject>())
                .is_null()
        };
        if !alone {
            return false;
        }
        // SAFETY: ours is the only reference, strong or weak, and none can come into being while we don't call Python.
        let held = unsafe { handle.get().held.alone() };
        if held.call.is_some() {
            return false;
        }
        let context = held.context.take();
        // Dropping the context may run any code.
        drop(context);
        true
    }

    /// Fills a recycled handle.
    ///
    /// # Safety
    /// There is no other reference.
    pub unsafe fn refill(&self, callback: Py<PyAny>, args: Py<PyTuple>, context: Py<PyAny>) {
        // SAFETY: as the caller promises. A recycled handle holds nothing, so nothing is dropped here.
        let held = unsafe { self.held.alone() };
        held.call = Some(Call { callback, args });
        held.context = Some(context);
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// Calls the callback, unless it was cancelled, and drops it.
    #[inline]
    pub fn run(&self, py: Python<'_>) -> Result<(), Failure> {
        let (call, context) = {
            let mut held = self.held.lock();
            (held.call.take(), held.context(py))
        };
        invoke(py, call, context)
    }

    /// Calls the callback, unless it was cancelled, and keeps it for the next time.
    pub fn run_again(&self, py: Python<'_>) -> Result<(), Failure> {
        let context = self.held.lock().context(py);
        invoke(py, self.call(py), context)
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Cancels. True if the handle was waiting: neither cancelled nor run before.
    pub fn cancel_once(&self) -> bool {
        self.cancelled.store(true, Ordering::Relaxed);
        // The callback is dropped after the cell is free again, because that may run any code.
        let call = self.held.lock().call.take();
        call.is_some()
    }

    /// Shows the collector what a waiting handle holds. The callback belongs to the loop alone, whoever else holds the handle:
    /// if the loop is garbage, it is never called. The context is shown only if the loop holds the only reference, since any
    /// other holder can ask for it.
    pub fn traverse(handle: &Py<Handle>, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(held) = handle.get().held.look() else {
            return Ok(());
        };
        // SAFETY: reads the count of a live object; no code runs while the collector looks.
        if unsafe { ffi::Py_REFCNT(handle.as_ptr()) } == 1 {
            visit.call(&held.context)?;
        }
        if let Some(call) = &held.call {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        Ok(())
    }

    pub fn call(&self, py: Python<'_>) -> Option<Call> {
        let held = self.held.lock();
        held.call.as_ref().map(|call| call.clone_ref(py))
    }
}

impl Held {
    fn context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.context.as_ref().map(|context| context.clone_ref(py))
    }
}

#[inline]
fn invoke(py: Python<'_>, call: Option<Call>, context: Option<Py<PyAny>>) -> Result<(), Failure> {
    let (Some(call), Some(context)) = (call, context) else {
        return Ok(());
    };
    let outcome = in_context(py, &context, || {
        call_tuple(py, &call.callback, &call.args).map(drop)
    });
    outcome.map_err(|error| Failure { error, call })
}

/// What a callback raised, and which callback it was.
pub struct Failure {
    pub error: PyErr,
    pub call: Call,
}

impl Call {
    fn clone_ref(&self, py: Python<'_>) -> Call {
        Call {
            callback: self.callback.clone_ref(py),
            args: self.args.clone_ref(py),
        }
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

    fn get_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.held.lock().context(py)
    }
}

/// The number of timers that were cancelled and are still in the heap.
#[derive(Default)]
pub struct Cancelled(AtomicUsize);

impl Cancelled {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Counts one less: a cancelled timer was dropped. The count may be too low, which is harmless: a cancelled timer calls
    /// nothing in any case.
    pub fn discount(&self) {
        let less = |count: usize| count.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// A scheduled callback: a native handle, or in debug mode one of asyncio's handles, which know where they were created.
pub enum Callback {
    Native(Py<Handle>),
    /// A [`ThreadSafeHandle`], by its base class.
    Shared(Py<Handle>),
    Debug(Py<PyAny>),
}

impl Callback {
    pub fn clone_ref(&self, py: Python<'_>) -> Callback {
        match self {
            Callback::Native(handle) => Callback::Native(handle.clone_ref(py)),
            Callback::Shared(handle) => Callback::Shared(handle.clone_ref(py)),
            Callback::Debug(handle) => Callback::Debug(handle.clone_ref(py)),
        }
    }

    pub fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Callback::Native(handle) | Callback::Shared(handle) => handle.get().is_cancelled(),
            Callback::Debug(handle) => handle
                .bind(py)
                .getattr(name!("_cancelled"))
                .and_then(|flag| flag.is_truthy())
                .unwrap_or(false),
        }
    }

    /// Drops what a callback that will not be called holds.
    pub fn discard(&self) {
        if let Callback::Native(handle) | Callback::Shared(handle) = self {
            handle.get().cancel_once();
        }
    }

    pub fn object(&self) -> &Py<PyAny> {
        match self {
            Callback::Native(handle) | Callback::Shared(handle) => handle.as_any(),
            Callback::Debug(handle) => handle,
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Callback::Native(handle) | Callback::Shared(handle) => Handle::traverse(handle, visit),
            Callback::Debug(handle) => visit.call(handle),
        }
    }
}

/// A callback scheduled for a time, as `asyncio.TimerHandle`.
#[pyclass(frozen, extends = Handle, module = "proact._core")]
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
        let timer = TimerHandle { when, cancelled };
        Py::new(py, PyClassInitializer::from(handle).add_subclass(timer))
    }
}

#[pymethods]
impl TimerHandle {
    /// The time it is due, in seconds of `loop.time()`.
    fn when(&self) -> Float {
        Float(self.when)
    }

    fn cancel(slf: &Bound<'_, Self>) {
        if slf.as_super().get().cancel_once() {
            slf.get().cancelled.add();
        }
    }
}
