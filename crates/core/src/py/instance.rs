//! Instances of classes with a `__dict__`.

use pyo3::PyClass;
#[cfg(not(Py_3_13))]
use pyo3::ffi;
use pyo3::prelude::*;

/// A new instance of a class with a `__dict__`. The dictionary is made only when something is put into it: CPython 3.11 and
/// 3.12 would make one with each instance. While they do so, 3.11 may collect garbage, and both drop the instance if there is
/// no memory. In both cases CPython would visit or drop an instance that has no content yet. Later Pythons do neither.
#[cfg(Py_3_13)]
pub fn instance<T: PyClass>(
    py: Python<'_>,
    value: impl Into<PyClassInitializer<T>>,
) -> PyResult<Bound<'_, T>> {
    Bound::new(py, value)
}

#[cfg(not(Py_3_13))]
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
