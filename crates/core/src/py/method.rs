//! A call that is made later: an object, and a function of its class. The caller does not know the class.

use pyo3::PyClass;
use pyo3::prelude::*;

/// `R`: what the call returns.
pub struct Method<R: 'static> {
    object: Py<PyAny>,
    run: for<'py> fn(&Bound<'py, PyAny>) -> PyResult<R>,
}

impl<R> Method<R> {
    pub fn new<T: PyClass>(object: Py<T>, run: for<'py> fn(&Bound<'py, T>) -> PyResult<R>) -> Method<R> {
        type Run<T, R> = for<'py> fn(&Bound<'py, T>) -> PyResult<R>;
        Method {
            object: object.into_any(),
            // SAFETY: the two types differ in what a reference points at, and such functions have one ABI
            // (https://doc.rust-lang.org/std/primitive.fn.html#abi-compatibility). The function is only ever given the object
            // beside it, which is of its class.
            run: unsafe { std::mem::transmute::<Run<T, R>, Run<PyAny, R>>(run) },
        }
    }

    pub fn call(&self, py: Python<'_>) -> PyResult<R> {
        (self.run)(self.object.bind(py))
    }

    pub fn object(&self) -> &Py<PyAny> {
        &self.object
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Method<R> {
        Method {
            object: self.object.clone_ref(py),
            run: self.run,
        }
    }
}

/// A call that is made once. It takes the reference with it, and may give it up before it goes on.
pub struct Once {
    object: Py<PyAny>,
    run: for<'py> fn(Bound<'py, PyAny>) -> PyResult<()>,
}

impl Once {
    pub fn new(object: Py<PyAny>, run: for<'py> fn(Bound<'py, PyAny>) -> PyResult<()>) -> Once {
        Once { object, run }
    }

    pub fn call(self, py: Python<'_>) -> PyResult<()> {
        (self.run)(self.object.into_bound(py))
    }

    pub fn object(&self) -> &Py<PyAny> {
        &self.object
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Once {
        Once::new(self.object.clone_ref(py), self.run)
    }
}
