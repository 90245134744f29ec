//! The slots of a class of Python's, read without the search for an attribute, which costs a hundred instructions.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::py::make::Name;

/// Where the objects of a class keep the value of one of its `__slots__`.
#[derive(Clone, Copy)]
pub struct Slot(ffi::Py_ssize_t);

/// CPython's `Py_T_OBJECT_EX`: a reference, or null for a slot without a value.
const OBJECT_OR_NULL: std::ffi::c_int = 16;

impl Slot {
    /// `None`: the class has another kind of attribute, or values may change while they are read, because there is no GIL.
    pub fn of(class: &Bound<'_, PyType>, name: &'static Name) -> PyResult<Option<Slot>> {
        let found = class.getattr(name)?;
        // SAFETY: the type of the object says that it has this layout, and its definition lives as long as the class.
        unsafe {
            if cfg!(Py_GIL_DISABLED) || ffi::Py_TYPE(found.as_ptr()) != &raw mut ffi::PyMemberDescr_Type {
                return Ok(None);
            }
            let member = (*found.as_ptr().cast::<ffi::PyMemberDescrObject>()).d_member;
            Ok(((*member).type_code == OBJECT_OR_NULL).then_some(Slot((*member).offset)))
        }
    }

    /// The value, if there is one.
    ///
    /// # Safety
    /// The object is an instance of the class, or of a class below it.
    #[inline]
    pub unsafe fn get<'py>(self, object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: an instance has a reference or null at this place.
        unsafe {
            let place = object
                .as_ptr()
                .cast::<u8>()
                .offset(self.0)
                .cast::<*mut ffi::PyObject>();
            Bound::from_borrowed_ptr_or_opt(object.py(), *place)
        }
    }
}
