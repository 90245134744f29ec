//! Keeps handles from the cycle collector: their allocator, which makes instances that the collector neither tracks nor counts.
//! Counted handles would trigger collections.
//!
//! CPython with a GIL has the collector's header in front of an object, and this allocator makes one. A free-threaded CPython
//! finds objects by their heap and has no such header, so there this file is left out, and handles are ordinary objects. The
//! loop shows the collector the content of waiting handles all the same.

use std::ffi::c_void;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use crate::reactor::handle::{Handle, TimerHandle};
use crate::reactor::threadsafe::ThreadSafeHandle;

/// The size of the collector's header in front of an object: two words, both 0 while the object is not tracked.
const HEADER: usize = 2 * size_of::<usize>();

/// Allocates an instance that the collector neither tracks nor counts. Counted handles would trigger collections.
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

/// Keeps instances of these classes from the collector, which PyO3 makes track every class. A Python subclass is tracked, and
/// has its own allocator.
pub fn install(py: Python<'_>) {
    for class in [
        py.get_type::<Handle>(),
        py.get_type::<TimerHandle>(),
        py.get_type::<ThreadSafeHandle>(),
    ] {
        // SAFETY: no instance was made yet, so each is allocated and freed by the same pair.
        unsafe {
            (*class.as_type_ptr()).tp_alloc = Some(allocate);
            (*class.as_type_ptr()).tp_free = Some(free);
        }
    }
}
