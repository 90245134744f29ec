//! Methods by CPython's own calling convention, for those that are called so often that PyO3's handling of arguments costs as much
//! as the rest of the call.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::py::make::{py_error, tuple_of};

/// Gives a class a method. `doc` begins with its signature.
pub fn add(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    method: ffi::PyCFunctionFastWithKeywords,
    doc: &'static CStr,
) -> PyResult<()> {
    // The descriptor refers to its definition for as long as the interpreter lives.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: method,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
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

/// A call of such a method, while it lasts: `count` arguments by their places, then one for each of `names`, a tuple or null.
pub struct Call<'py> {
    py: Python<'py>,
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
}

/// Says what kind of closure a body is, whose type stays its own: each method has a way in that the compiler knows whole.
pub fn body<F: for<'py> Fn(&Call<'py>) -> PyResult<Py<PyAny>>>(body: F) -> F {
    body
}

/// Runs the body of a method: no panic leaves it, and an error is set for Python.
///
/// # Safety
/// Python has called the method, with these arguments, so the GIL is held. To attach once more, as PyO3 would, costs a twentieth of a
/// `call_soon`, and of a thread that PyO3 has not attached far more.
#[inline]
pub unsafe fn run(
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    body: impl for<'py> Fn(&Call<'py>) -> PyResult<Py<PyAny>>,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    let py = unsafe { Python::assume_attached() };
    let call = Call {
        py,
        object,
        args,
        count: count as usize,
        names,
    };
    match catch_unwind(AssertUnwindSafe(|| body(&call))) {
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

/// A function of this name, as CPython calls it: the body has the call in hand.
macro_rules! native_method {
    ($name:ident, $body:expr) => {
        unsafe extern "C" fn $name(
            object: *mut pyo3::ffi::PyObject,
            args: *const *mut pyo3::ffi::PyObject,
            count: pyo3::ffi::Py_ssize_t,
            names: *mut pyo3::ffi::PyObject,
        ) -> *mut pyo3::ffi::PyObject {
            let body = $crate::py::native_method::body($body);
            // SAFETY: CPython has called this.
            unsafe { $crate::py::native_method::run(object, args, count, names, body) }
        }
    };
}
pub(crate) use native_method;

impl<'py> Call<'py> {
    #[inline]
    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// The object whose method is called.
    #[inline]
    pub fn object(&self) -> &Bound<'py, PyAny> {
        // SAFETY: it lives for the call.
        unsafe { Bound::ref_from_ptr(self.py, &self.object) }
    }

    /// The same, by its class.
    ///
    /// # Safety
    /// The method was given to `T` and to nothing else: its descriptor lets only instances through.
    #[inline]
    pub unsafe fn object_of<T: PyClass>(&self) -> &Bound<'py, T> {
        // SAFETY: as the caller promises.
        unsafe { self.object().cast_unchecked() }
    }

    fn names(&self) -> Option<&Bound<'py, PyTuple>> {
        // SAFETY: a tuple, which lives for the call.
        unsafe { (!self.names.is_null()).then(|| Bound::ref_from_ptr(self.py, &self.names).cast_unchecked()) }
    }

    /// How many arguments there are, by place and by name.
    pub fn len(&self) -> usize {
        self.count + self.names().map_or(0, |names| names.len())
    }

    /// How many arguments are given by their places.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The argument in this place: those with names come behind the others.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&Bound<'py, PyAny>> {
        let is_there = place < self.count || place < self.len();
        // SAFETY: it lives for the call.
        is_there.then(|| unsafe { Bound::ref_from_ptr(self.py, &*self.args.add(place)) })
    }

    /// The arguments that have names.
    #[inline]
    pub fn named(&self) -> impl Iterator<Item = (Bound<'py, PyAny>, &Bound<'py, PyAny>)> {
        let names = self.names().into_iter().flatten().enumerate();
        names.filter_map(|(index, name)| Some((name, self.get(self.count + index)?)))
    }

    /// The argument, if there is one, and that by its place.
    #[inline]
    pub fn only(&self) -> Option<&Bound<'py, PyAny>> {
        if self.count == 1 && self.names.is_null() {
            self.get(0)
        } else {
            None
        }
    }

    /// The argument of a method that has one, by its place or by its `name`.
    ///
    /// # Errors
    /// `TypeError`, if there is another number of arguments, or one of another name.
    #[inline]
    pub fn argument(&self, method: &str, name: &str) -> PyResult<&Bound<'py, PyAny>> {
        match self.only() {
            Some(argument) => Ok(argument),
            None => self.named_argument(method, name),
        }
    }

    #[cold]
    fn named_argument(&self, method: &str, name: &str) -> PyResult<&Bound<'py, PyAny>> {
        if self.len() == 1
            && let Some((given, argument)) = self.named().next()
            && given.eq(name)?
        {
            return Ok(argument);
        }
        Err(py_error::<PyTypeError>(format!(
            "{method}() takes exactly one argument, '{name}'"
        )))
    }

    /// # Errors
    /// `TypeError`, if there are arguments.
    #[inline]
    pub fn no_arguments(&self, method: &str) -> PyResult<()> {
        if self.count == 0 && self.names.is_null() {
            return Ok(());
        }
        Err(py_error::<PyTypeError>(format!("{method}() takes no arguments")))
    }

    /// The arguments from this place on that have no names.
    #[inline]
    pub fn rest(&self, from: usize) -> PyResult<Bound<'py, PyTuple>> {
        // SAFETY: so many live objects are there.
        unsafe {
            tuple_of(
                self.py,
                self.args.wrapping_add(from),
                self.count.saturating_sub(from),
            )
        }
    }

    /// Calls another function with the object and the same arguments.
    #[cold]
    pub fn pass_on(&self, function: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        // SAFETY: as many live objects as the convention says; a new reference or null with an exception set.
        unsafe {
            let mut whole = vec![self.object];
            whole.extend((0..self.len()).map(|place| *self.args.add(place)));
            let value =
                ffi::PyObject_Vectorcall(function.as_ptr(), whole.as_ptr(), 1 + self.count, self.names);
            Bound::from_owned_ptr_or_err(self.py, value).map(Bound::unbind)
        }
    }
}
