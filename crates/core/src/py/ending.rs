//! How native code behaves while something ends: an object (its destructor runs), the interpreter, or a thread.
//!
//! *Destructors* run wherever the last reference is dropped, also while an exception is set. [`finalise`] hides that exception
//! from them, and does not run them once the interpreter ends.
//!
//! *Threads*: when the interpreter ends, CPython before 3.14 ends each daemon thread that asks for the GIL with
//! `pthread_exit` (<https://github.com/python/cpython/issues/87135>). That unwinds the thread's stack. Rust frames would run
//! their destructors without the GIL, and a frame that Python has called may not be unwound at all: the process crashes.
//! CPython 3.14 lets such a thread hang instead. [`install`] does the same for the older ones: the unwinder asks the
//! personality routine of each Rust frame what to do, before it enters the frame, and ours stops the thread there, with
//! everything in its place. Ordinary panics go to Rust's own routine.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

/// Whether the interpreter is finalising: from then on destructors must not call Python.
pub fn interpreter_ends() -> bool {
    unsafe extern "C" {
        #[cfg_attr(not(Py_3_13), link_name = "_Py_IsFinalizing")]
        fn Py_IsFinalizing() -> c_int;
    }
    // SAFETY: may be called at any time, by any thread.
    unsafe { Py_IsFinalizing() != 0 }
}

/// The exception that is set in this thread, if any.
#[cfg(Py_3_12)]
struct Raised(*mut ffi::PyObject);
#[cfg(not(Py_3_12))]
struct Raised([*mut ffi::PyObject; 3]);

impl Raised {
    fn take() -> Raised {
        #[cfg(Py_3_12)]
        // SAFETY: called with the GIL; the reference is ours until it is given back.
        return Raised(unsafe { ffi::PyErr_GetRaisedException() });
        #[cfg(not(Py_3_12))]
        {
            let mut raised = [std::ptr::null_mut(); 3];
            let [kind, value, traceback] = &mut raised;
            // SAFETY: three places to write to; the references in them are ours until they are given back.
            unsafe { ffi::PyErr_Fetch(kind, value, traceback) };
            Raised(raised)
        }
    }

    fn restore(self) {
        #[cfg(Py_3_12)]
        // SAFETY: what `take` has taken, null included.
        unsafe {
            ffi::PyErr_SetRaisedException(self.0)
        };
        #[cfg(not(Py_3_12))]
        {
            let [kind, value, traceback] = self.0;
            // SAFETY: what `take` has taken, nulls included.
            unsafe { ffi::PyErr_Restore(kind, value, traceback) };
        }
    }
}

/// Runs the part of a destructor that calls Python. An exception that is set stays as it is. An exception that `body` raises
/// goes to `sys.unraisablehook`. False: the interpreter is finalising, and `body` did not run.
pub fn finalise(body: impl FnOnce(Python<'_>) -> PyResult<()>) -> bool {
    if interpreter_ends() {
        return false;
    }
    let ran = Python::try_attach(|py| {
        let raised = Raised::take();
        if let Err(error) = body(py) {
            error.write_unraisable(py, None);
        }
        raised.restore();
    });
    ran.is_some()
}

/// The type of a personality routine (Itanium C++ ABI, "Exception Handling", 2.5.2).
type Personality = unsafe extern "C" fn(c_int, c_int, u64, *mut c_void, *mut c_void) -> c_int;

/// The action bit of a forced unwind: the thread ends, and no frame can stop that (_UA_FORCE_UNWIND).
const FORCED: c_int = 8;

static RUSTS_OWN: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

unsafe extern "C" {
    /// Where all unwind tables of this library look for the routine: a word that the compiler emits once a library.
    #[link_name = "DW.ref.rust_eh_personality"]
    static ROUTINE: AtomicPtr<c_void>;
}

unsafe extern "C" fn personality(
    version: c_int,
    actions: c_int,
    class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    if actions & FORCED != 0 {
        loop {
            // SAFETY: waits for a signal, again and again. The process ends around this thread.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: the pointer was read from the place of a personality routine before this one was put there.
    unsafe {
        let rusts_own = std::mem::transmute::<*mut c_void, Personality>(RUSTS_OWN.load(Ordering::Relaxed));
        rusts_own(version, actions, class, exception, context)
    }
}

/// Makes threads that are ended from outside stop at the frames of this library.
pub fn install() {
    let ours = personality as Personality as *mut c_void;
    // SAFETY: the word is writable data of this library, aligned, and only ever read whole.
    let before = unsafe { ROUTINE.load(Ordering::Relaxed) };
    if before != ours {
        RUSTS_OWN.store(before, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { ROUTINE.store(ours, Ordering::Relaxed) };
    }
}
