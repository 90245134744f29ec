//! Methods by CPython's own calling convention, for those that are called so often that PyO3's handling of arguments costs as much
//! as the rest of the call.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::py::make::py_error;

/// How a method takes its arguments.
pub enum Convention {
    /// By their places.
    Fast(ffi::PyCFunctionFast),
    /// Also by their names.
    FastWithKeywords(ffi::PyCFunctionFastWithKeywords),
}

/// Gives a class a method. `doc` begins with its signature.
pub fn add(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    method: Convention,
    doc: &'static CStr,
) -> PyResult<()> {
    let (ml_meth, ml_flags) = match method {
        Convention::Fast(method) => (
            ffi::PyMethodDefPointer {
                PyCFunctionFast: method,
            },
            ffi::METH_FASTCALL,
        ),
        Convention::FastWithKeywords(method) => (
            ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: method,
            },
            ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ),
    };
    // The descriptor refers to its definition for as long as the interpreter lives.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth,
        ml_flags,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: a live class and a definition that is never freed; a new reference or null with an exception set.
    let descriptor = unsafe {
        Bound::from_owned_ptr_or_err(
            class.py(),
            ffi::PyDescr_NewMethod(class.as_type_ptr(), definition),
        )?
    };
    class.setattr(name, descriptor)
}

/// Runs the body of such a method: no panic leaves it, and an error is set for Python.
///
/// # Safety
/// Python has called the method, so the GIL is held. To attach once more, as PyO3 would, costs a twentieth of a `call_soon`, and of
/// a thread that PyO3 has not attached far more.
#[inline]
pub unsafe fn run<'py>(body: impl FnOnce(Python<'py>) -> PyResult<Py<PyAny>>) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    let py = unsafe { Python::assume_attached() };
    match catch_unwind(AssertUnwindSafe(|| body(py))) {
        Ok(Ok(value)) => value.into_ptr(),
        Ok(Err(error)) => {
            error.restore(py);
            std::ptr::null_mut()
        }
        Err(_) => {
            PanicException::new_err("panic in a method of the loop").restore(py);
            std::ptr::null_mut()
        }
    }
}

/// The call of a method, by CPython's convention: `count` positional arguments, and one more for each of `names`, or null.
pub struct Call {
    pub this: *mut ffi::PyObject,
    pub args: *const *mut ffi::PyObject,
    pub count: ffi::Py_ssize_t,
    pub names: *mut ffi::PyObject,
}

/// A method by CPython's convention with names: a function of that name, which has the call in hand.
macro_rules! native_method {
    ($name:ident, $body:expr) => {
        unsafe extern "C" fn $name(
            this: *mut pyo3::ffi::PyObject,
            args: *const *mut pyo3::ffi::PyObject,
            count: pyo3::ffi::Py_ssize_t,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let call = $crate::py::native_method::Call {
                this,
                args,
                count,
                names,
            };
            let body: fn(&$crate::py::native_method::Call, Python<'_>) -> PyResult<Py<PyAny>> = $body;
            // SAFETY: CPython has called this.
            unsafe { $crate::py::native_method::run(|py| body(&call, py)) }
        }
    };
}
pub(crate) use native_method;

impl Call {
    /// The object whose method is called.
    ///
    /// # Safety
    /// As [`Call::named`].
    #[inline]
    pub unsafe fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: a live object.
        unsafe { Bound::from_borrowed_ptr(py, self.this) }
    }

    /// How many arguments are named.
    ///
    /// # Safety
    /// The call lasts, and the thread is attached.
    pub unsafe fn named(&self) -> ffi::Py_ssize_t {
        if self.names.is_null() {
            return 0;
        }
        // SAFETY: a tuple.
        unsafe { ffi::PyTuple_GET_SIZE(self.names) }
    }

    /// The argument, if there is one, and that by its place.
    ///
    /// # Safety
    /// As [`Call::named`].
    #[inline]
    pub unsafe fn only<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let is_only = self.count == 1 && self.names.is_null();
        // SAFETY: one live object.
        is_only.then(|| unsafe { Bound::from_borrowed_ptr(py, *self.args) })
    }

    /// Calls another method with the same arguments.
    ///
    /// # Safety
    /// As [`Call::named`].
    #[cold]
    pub unsafe fn pass_on(&self, py: Python<'_>, method: &Py<PyAny>) -> PyResult<Py<PyAny>> {
        // SAFETY: as many live objects as the convention says; a new reference or null with an exception set.
        unsafe {
            let mut whole = vec![self.this];
            whole.extend((0..self.count + self.named()).map(|index| *self.args.offset(index)));
            let count = 1 + self.count as usize;
            let value = ffi::PyObject_Vectorcall(method.as_ptr(), whole.as_ptr(), count, self.names);
            Bound::from_owned_ptr_or_err(py, value).map(Bound::unbind)
        }
    }
}

/// The argument of a method that has one, by its place or by its `name`.
///
/// # Errors
/// `TypeError`, if there is another number of arguments, or one of another name.
///
/// # Safety
/// `args` are `positional` live objects, then one for each of the tuple `names` (or null), as CPython passes them.
#[inline]
pub unsafe fn only_argument<'py>(
    py: Python<'py>,
    method: &str,
    name: &str,
    args: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: as the caller promises.
    unsafe {
        if positional == 1 && names.is_null() {
            return Ok(Bound::from_borrowed_ptr(py, *args));
        }
        if positional == 0 && !names.is_null() {
            let names = Bound::from_borrowed_ptr(py, names).cast_into_unchecked::<PyTuple>();
            if names.len() == 1 && names.get_item(0)?.eq(name)? {
                return Ok(Bound::from_borrowed_ptr(py, *args));
            }
        }
    }
    Err(py_error::<PyTypeError>(format!(
        "{method}() takes exactly one argument, '{name}'"
    )))
}
