//! Whether a reference is the only one, so that the object can be changed as nobody sees it.

use pyo3::ffi;

/// Whether ours is the only reference to an object, and will be until we give another one away. An answer of `false` is always
/// safe.
///
/// A free-threaded Python counts the references of the thread that made an object apart from all others, and its count of 1
/// does not say that no other thread is about to count. CPython 3.14 has a function that does; for 3.13 nothing is unique.
///
/// # Safety
/// A live object, of which the caller owns a reference.
#[inline]
pub unsafe fn is_unique(object: *mut ffi::PyObject) -> bool {
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: as the caller promises.
    return unsafe { ffi::Py_REFCNT(object) == 1 };
    #[cfg(all(Py_GIL_DISABLED, Py_3_14))]
    // SAFETY: as the caller promises.
    return unsafe { ffi::PyUnstable_Object_IsUniquelyReferenced(object) != 0 };
    #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
    {
        let _ = object;
        false
    }
}
