//! greenlet's C API, which the package `greenlet` offers in a capsule. It is looked up when green code is first configured, so
//! that proact neither needs the package nor is compiled against it.
//!
//! A switch copies this thread's C stack out and another one in. So whoever calls `switch` holds no guard of a cell, and nothing
//! that the kernel may touch lies on the stack.

use std::ffi::{c_int, c_void};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type Object = *mut ffi::PyObject;

/// The functions, at the places of `greenlet.h`, which have been the same since greenlet 0.4.
pub struct Api {
    current: unsafe extern "C" fn() -> Object,
    throw: unsafe extern "C" fn(Object, Object, Object, Object) -> Object,
    switch: unsafe extern "C" fn(Object, Object, Object) -> Object,
    set_parent: unsafe extern "C" fn(Object, Object) -> c_int,
    parent: unsafe extern "C" fn(Object) -> Object,
}

const CURRENT: usize = 4;
const THROW: usize = 5;
const SWITCH: usize = 6;
const SET_PARENT: usize = 7;
const PARENT: usize = 11;

impl Api {
    /// # Errors
    /// `ImportError` without the package.
    pub fn load(py: Python<'_>) -> PyResult<Api> {
        py.import("greenlet")?;
        // SAFETY: the name is terminated; null with an exception set if there is no such capsule.
        let table = unsafe { ffi::PyCapsule_Import(c"greenlet._C_API".as_ptr(), 0) };
        if table.is_null() {
            return Err(PyErr::fetch(py));
        }
        let table = table.cast::<*mut c_void>();
        // SAFETY: the table of greenlet.h, whose entries at these places have these types. It is never freed.
        unsafe {
            Ok(Api {
                current: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> Object>(
                    *table.add(CURRENT),
                ),
                throw: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(Object, Object, Object, Object) -> Object,
                >(*table.add(THROW)),
                switch: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(Object, Object, Object) -> Object,
                >(*table.add(SWITCH)),
                set_parent: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Object, Object) -> c_int>(
                    *table.add(SET_PARENT),
                ),
                parent: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Object) -> Object>(
                    *table.add(PARENT),
                ),
            })
        }
    }

    /// The greenlet that runs.
    #[inline]
    pub fn current<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, (self.current)()) }
    }

    /// The parent of a greenlet; `None` for the first one of a thread.
    #[inline]
    pub fn parent<'py>(&self, greenlet: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: a greenlet; a new reference, or null without an exception.
        unsafe { Bound::from_owned_ptr_or_opt(greenlet.py(), (self.parent)(greenlet.as_ptr())) }
    }

    /// Makes the running greenlet the parent: where `greenlet` goes when it waits, and when it ends.
    #[inline]
    pub fn adopt<'py>(&self, greenlet: &Bound<'py, PyAny>, parent: &Bound<'py, PyAny>) -> PyResult<()> {
        if self.parent(greenlet).is_some_and(|known| known.is(parent)) {
            return Ok(());
        }
        // SAFETY: two greenlets, which is checked; -1 with an exception set.
        if unsafe { (self.set_parent)(greenlet.as_ptr(), parent.as_ptr()) } < 0 {
            return Err(PyErr::fetch(greenlet.py()));
        }
        Ok(())
    }

    /// Switches to a greenlet, and returns what this one is switched back with.
    #[inline]
    pub fn switch<'py>(
        &self,
        greenlet: &Bound<'py, PyAny>,
        args: Option<&Bound<'py, PyTuple>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let args = args.map_or(std::ptr::null_mut(), |args| args.as_ptr());
        // SAFETY: a greenlet, and a tuple or null; a new reference, or null with an exception set.
        unsafe {
            let back = (self.switch)(greenlet.as_ptr(), args, std::ptr::null_mut());
            Bound::from_owned_ptr_or_err(greenlet.py(), back)
        }
    }

    /// Switches to a greenlet, where an exception is raised.
    pub fn throw<'py>(
        &self,
        greenlet: &Bound<'py, PyAny>,
        exception: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = greenlet.py();
        let kind = exception.get_type();
        let traceback = exception.getattr(crate::py::make::name!("__traceback__"))?;
        let traceback = if traceback.is_none() {
            std::ptr::null_mut()
        } else {
            traceback.as_ptr()
        };
        // SAFETY: a greenlet, and an exception with its class and traceback; a new reference, or null with an exception set.
        unsafe {
            let back = (self.throw)(greenlet.as_ptr(), kind.as_ptr(), exception.as_ptr(), traceback);
            Bound::from_owned_ptr_or_err(py, back)
        }
    }
}
