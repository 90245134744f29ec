//! Handles: a callback with its arguments and context, scheduled once (`call_soon`), at a time, or per readiness.
//!
//! They are made and dropped once per callback, so the cycle collector does not track them: a handle that has run, or
//! was cancelled, or whose loop was closed, holds no callback that could be a cycle. Of those that wait, the scheduler
//! shows the collector what they hold (`Handle::traverse`). One that has run and that nobody else holds is used again.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::PyTraverseError;
use pyo3::PyTypeInfo;
use pyo3::ffi::{self, PyObject};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::call::{call_tuple, current_context, in_context};
use crate::py::cell::LoopCell;
use crate::py::make::{Float, Text, name};

struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

/// What a handle holds: the callback until it has run or is cancelled, the context for as long as anybody may ask.
struct Held {
    call: Option<Call>,
    context: Option<Py<PyAny>>,
}

/// A scheduled callback, as `asyncio.Handle`.
#[pyclass(frozen, subclass, weakref, module = "proact._core")]
pub struct Handle {
    held: LoopCell<Held>,
    cancelled: AtomicBool,
}

/// What CPython keeps in front of an object that the collector knows: two words, both 0 while it is not tracked.
const HEADER: usize = 2 * size_of::<usize>();

/// A new, untracked instance, which the collector does not count either: handles would bring its next run nearer.
unsafe extern "C" fn allocate(class: *mut ffi::PyTypeObject, _items: ffi::Py_ssize_t) -> *mut PyObject {
    // SAFETY: a class of fixed size. The block is as large as header and instance, and both begin as zeros, as
    // `tp_alloc` must have it. CPython's allocator aligns it to 16 bytes.
    unsafe {
        let block = ffi::PyObject_Calloc(1, HEADER + (*class).tp_basicsize as usize);
        if block.is_null() {
            return ffi::PyErr_NoMemory();
        }
        ffi::PyObject_Init(block.byte_add(HEADER).cast(), class)
    }
}

unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: it was allocated above.
    unsafe { ffi::PyObject_Free(object.byte_sub(HEADER)) }
}

/// Takes both classes out of the collector's accounts: PyO3 has it track every class. A class that Python derives from
/// them is tracked, with an allocator of its own.
pub fn install(py: Python<'_>) {
    for class in [py.get_type::<Handle>(), py.get_type::<TimerHandle>()] {
        // SAFETY: no instance was made yet, so each is allocated and freed by the same pair.
        unsafe {
            (*class.as_type_ptr()).tp_alloc = Some(allocate);
            (*class.as_type_ptr()).tp_free = Some(free);
        }
    }
}

impl Handle {
    /// As an object.
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
            held: LoopCell::new(Held {
                call: Some(Call { callback, args }),
                context: Some(context),
            }),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Empties a handle that has run or was cancelled, if nobody else can ever see it: it can be filled again.
    pub fn recycle(handle: &Py<Handle>, py: Python<'_>) -> bool {
        let object = handle.as_ptr();
        // SAFETY: reads the count, the type and the list of weak references of a live object.
        let alone = unsafe {
            let kind = ffi::Py_TYPE(object);
            ffi::Py_REFCNT(object) == 1
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
        // What the context holds may run any code on its way out.
        drop(context);
        true
    }

    /// Makes a recycled handle a new one.
    ///
    /// # Safety
    /// Nobody else has a reference.
    pub unsafe fn refill(&self, callback: Py<PyAny>, args: Py<PyTuple>, context: Py<PyAny>) {
        // SAFETY: as the caller promises. A recycled handle holds nothing, so nothing is dropped here.
        let held = unsafe { self.held.alone() };
        held.call = Some(Call { callback, args });
        held.context = Some(context);
        self.cancelled.store(false, Ordering::Relaxed);
    }

    /// Calls back once, unless cancelled; afterwards the handle holds no callback. An error comes with the words that
    /// describe the callback.
    #[inline]
    pub fn run(&self, py: Python<'_>) -> Result<(), Failure> {
        let (call, context) = match self.held.try_get() {
            Some(mut held) => (held.call.take(), held.context(py)),
            None => return Ok(()),
        };
        invoke(py, call, context)
    }

    /// Calls back, unless cancelled, and can do so again.
    pub fn run_again(&self, py: Python<'_>) -> Result<(), Failure> {
        let context = self.held.try_get().and_then(|held| held.context(py));
        invoke(py, self.call(py), context)
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// True if it was waiting: neither cancelled nor run before.
    pub fn cancel_once(&self) -> bool {
        self.cancelled.store(true, Ordering::Relaxed);
        // What it held is dropped here, with the cell free: that may run any code.
        let call = self.held.try_get().and_then(|mut held| held.call.take());
        call.is_some()
    }

    /// What a waiting handle holds, for the collector. The callback is its loop's alone, whoever else holds the handle:
    /// a loop that is garbage calls nobody back. The context can be asked for.
    pub fn traverse(handle: &Py<Handle>, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(held) = handle.get().held.try_get() else {
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

    fn call(&self, py: Python<'_>) -> Option<Call> {
        let held = self.held.try_get()?;
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
    outcome.map_err(|error| Failure {
        shown: call.describe(py),
        error,
    })
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
            .import(name!("asyncio.format_helpers"))
            .and_then(|helpers| {
                helpers.call_method1(name!("_format_callback_source"), (&self.callback, &self.args))
            })
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

    fn get_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.held.try_get().and_then(|held| held.context(py))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Text<String>> {
        let name = slf.get_type().name()?;
        let this = slf.get();
        let state = match this.call(slf.py()) {
            Some(call) => call.describe(slf.py()),
            None if this.is_cancelled() => "cancelled".into(),
            None => "finished".into(),
        };
        Ok(Text(format!("<{name} {state}>")))
    }
}

/// How many timers were cancelled since the heap was last swept.
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

    /// One of them was dropped. The count may be off, for one that is not known to be cancelled calls nothing.
    pub fn discount(&self) {
        let less = |count: usize| count.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
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
