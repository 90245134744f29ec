//! Instances of classes with a `__dict__`.

use pyo3::prelude::*;
use pyo3::{PyClass, ffi};

/// A new instance of a class with a `__dict__`, which is made only for those who put something in: CPython 3.11 and 3.12 make
/// one with each instance, 3.11 may collect garbage meanwhile, and with no memory for it both drop the instance, while there
/// is nothing yet in it to be visited or dropped.
pub fn instance<T: PyClass>(
    py: Python<'_>,
    value: impl Into<PyClassInitializer<T>>,
) -> PyResult<Bound<'_, T>> {
    let class = T::type_object_raw(py);
    // SAFETY: called with the GIL; sets a flag of the interpreter's, and hides from it where an instance has its dictionary. No
    // code of Python's runs until both are as they were.
    unsafe {
        let collects = cfg!(not(Py_3_12)) && ffi::PyGC_Disable() != 0;
        let place = std::mem::replace(&mut (*class).tp_dictoffset, 0);
        let made = Bound::new(py, value);
        (*class).tp_dictoffset = place;
        if collects {
            ffi::PyGC_Enable();
        }
        made
    }
}
