//! Loops that could not be made. If there is no memory for the attributes of a Python subclass's instance, CPython 3.11 and
//! 3.12 drop the instance before PyO3 has put a value into it. PyO3's destructor would then drop a value that never existed.

use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;

use super::Scheduler;

static WHOLE: OnceLock<ffi::destructor> = OnceLock::new();

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called by CPython with the GIL, for the last reference to an instance. Its memory began as zeros, and an `Arc`
    // is none. What is freed here holds nothing; a heap class counts its instances.
    unsafe {
        let py = Python::assume_attached();
        let this = {
            let object = Borrowed::from_ptr(py, object).cast_unchecked::<Scheduler>();
            std::ptr::from_ref(object.get())
        };
        let is_made = !(&raw const (*this).cancelled)
            .cast::<*const ()>()
            .read()
            .is_null();
        match WHOLE.get() {
            Some(whole) if is_made => whole(object),
            _ => {
                let class = ffi::Py_TYPE(object);
                ffi::PyObject_GC_UnTrack(object.cast());
                if let Some(free) = (*class).tp_free {
                    free(object.cast());
                }
                ffi::Py_DECREF(class.cast());
            }
        }
    }
}

/// Installs the destructor in front of PyO3's.
pub fn install(py: Python<'_>) {
    let class = py.get_type::<Scheduler>().as_type_ptr();
    // SAFETY: the class is ours, and no instance was made yet.
    unsafe {
        if let Some(whole) = (*class).tp_dealloc
            && WHOLE.set(whole).is_ok()
        {
            (*class).tp_dealloc = Some(dealloc);
        }
    }
}
