//! Classes whose instances threads make and drop all the time, each in its own.
//!
//! Each instance is a reference to its class. A free-threaded CPython 3.13 counts them in one word, for which two loops in two threads
//! compete: making and dropping a handle then cost a third more. (Later Pythons count them apart for each thread.) The
//! classes live as long as the process, so they need no count.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

/// The local count of an object that is never freed (`_Py_IMMORTAL_REFCNT_LOCAL` in CPython's refcount.h).
const IMMORTAL: u32 = u32::MAX;

/// Ends the counting of references to a class.
pub fn count_no_references<T: PyTypeInfo>(py: Python<'_>) {
    let class = py.get_type::<T>();
    // SAFETY: a live object, which no other thread knows yet: the module is being imported. The word is only compared with
    // this value from now on.
    unsafe { (*class.as_ptr()).ob_ref_local.store(IMMORTAL, Ordering::Relaxed) };
}
