//! Python objects that are made without panics. PyO3 panics if Python has no memory for a string, a number or a dictionary,
//! and a panic ends the loop. The functions and types here raise `MemoryError` instead. Names, texts and numbers are passed to
//! Python as these types, and become objects within the call.

use std::borrow::Cow;
use std::ffi::CStr;

use pyo3::PyErrArguments;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyBaseException, PyStopIteration};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple};

/// The interned name of an attribute, a module or a keyword, made when it is first used. [`name!`] makes them.
pub struct Name {
    text: &'static CStr,
    known: PyOnceLock<Py<PyString>>,
}

/// `name!("fileno")`: a [`Name`] that lives as long as the program.
macro_rules! name {
    ($text:literal) => {{
        static NAME: $crate::py::make::Name = $crate::py::make::Name::new(concat!($text, "\0"));
        &NAME
    }};
}
pub(crate) use name;

impl Name {
    pub const fn new(terminated: &'static str) -> Name {
        match CStr::from_bytes_with_nul(terminated.as_bytes()) {
            Ok(text) => Name {
                text,
                known: PyOnceLock::new(),
            },
            Err(_) => panic!("a name contains no NUL"),
        }
    }

    #[inline]
    pub fn get<'py>(&'static self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyString>> {
        match self.known.get(py) {
            Some(known) => Ok(known.bind(py)),
            None => self.intern(py),
        }
    }

    #[cold]
    fn intern<'py>(&'static self, py: Python<'py>) -> PyResult<&'py Bound<'py, PyString>> {
        let known = self.known.get_or_try_init(py, || {
            // SAFETY: a terminated text; new reference or null with an exception set.
            let made = unsafe {
                Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_InternFromString(self.text.as_ptr()))
            }?;
            Ok::<_, PyErr>(made.cast_into::<PyString>()?.unbind())
        })?;
        Ok(known.bind(py))
    }

    /// For messages.
    pub fn text(&self) -> Cow<'static, str> {
        self.text.to_string_lossy()
    }
}

impl<'py> IntoPyObject<'py> for &'static Name {
    type Target = PyString;
    type Output = Borrowed<'py, 'py, PyString>;
    type Error = PyErr;

    #[inline]
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        self.get(py).map(Bound::as_borrowed)
    }
}

/// A text that becomes a `str`.
pub struct Text<T: AsRef<str>>(pub T);

impl<'py, T: AsRef<str>> IntoPyObject<'py> for Text<T> {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        PyString::from_bytes(py, self.0.as_ref().as_bytes())
    }
}

/// A number that becomes an `int`.
pub struct Int(i64);

impl Int {
    /// A number that does not fit becomes the greatest that does.
    pub fn new(number: impl TryInto<i64>) -> Int {
        Int(number.try_into().unwrap_or(i64::MAX))
    }
}

impl<'py> IntoPyObject<'py> for Int {
    type Target = PyInt;
    type Output = Bound<'py, PyInt>;
    type Error = PyErr;

    #[inline]
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        // SAFETY: new reference or null with an exception set; an int if there is one.
        unsafe {
            let made = Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(self.0))?;
            Ok(made.cast_into_unchecked())
        }
    }
}

/// A number that becomes an `int`, of all 64 bits.
pub struct Unsigned(pub u64);

impl<'py> IntoPyObject<'py> for Unsigned {
    type Target = PyInt;
    type Output = Bound<'py, PyInt>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        // SAFETY: new reference or null with an exception set; an int if there is one.
        unsafe {
            let made = Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromUnsignedLongLong(self.0))?;
            Ok(made.cast_into_unchecked())
        }
    }
}

/// A number that becomes a `float`.
pub struct Float(pub f64);

impl<'py> IntoPyObject<'py> for Float {
    type Target = PyFloat;
    type Output = Bound<'py, PyFloat>;
    type Error = PyErr;

    #[inline]
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        // SAFETY: new reference or null with an exception set; a float if there is one.
        unsafe {
            let made = Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(self.0))?;
            Ok(made.cast_into_unchecked())
        }
    }
}

/// A new dictionary.
pub fn dict(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    // SAFETY: new reference or null with an exception set; a dictionary if there is one.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyDict_New())?.cast_into_unchecked()) }
}

/// A tuple of `count` objects.
///
/// # Safety
/// As many live objects are at `items`.
#[inline]
pub unsafe fn tuple_of<'py>(
    py: Python<'py>,
    items: *const *mut ffi::PyObject,
    count: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    if count == 0 {
        return Ok(PyTuple::empty(py));
    }
    // SAFETY: a new tuple of that size, whose places are each given a reference of their own.
    unsafe {
        let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(count as ffi::Py_ssize_t))?;
        for index in 0..count {
            let item = ffi::Py_NewRef(*items.add(index));
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as ffi::Py_ssize_t, item);
        }
        Ok(tuple.cast_into_unchecked())
    }
}

/// A tuple of these objects.
pub fn tuple<'py>(py: Python<'py>, items: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyTuple>> {
    // SAFETY: a `Bound` is a pointer to an object, and these live.
    unsafe { tuple_of(py, items.as_ptr().cast(), items.len()) }
}

/// A list of these objects.
pub fn list<'py>(py: Python<'py>, items: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    let items = tuple(py, items)?;
    // SAFETY: a live sequence; new reference or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PySequence_List(items.as_ptr())) }
}

/// A tuple of two numbers, as `get_write_buffer_limits` returns.
pub fn pair<'py>(py: Python<'py>, numbers: (usize, usize)) -> PyResult<Bound<'py, PyTuple>> {
    let object = |number| PyResult::Ok(Int::new(number).into_pyobject(py)?.into_any());
    tuple(py, &[object(numbers.0)?, object(numbers.1)?])
}

/// The arguments of an exception: a message, or an errno and a message. PyO3 makes an exception when it is raised. If there is
/// no memory for the message then, the exception has none.
struct Words(Option<i32>, Cow<'static, str>);

impl Words {
    fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let message = Text(&self.1).into_pyobject(py)?.into_any();
        match self.0 {
            None => Ok(message),
            Some(errno) => {
                let errno = Int::new(errno).into_pyobject(py)?.into_any();
                Ok(tuple(py, &[errno, message])?.into_any())
            }
        }
    }
}

impl PyErrArguments for Words {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        self.object(py).map_or_else(|_| py.None(), Bound::unbind)
    }
}

/// An exception of a class, with a message.
pub fn py_error<T: PyTypeInfo>(message: impl Into<Cow<'static, str>>) -> PyErr {
    PyErr::new::<T, _>(Words(None, message.into()))
}

/// An `OSError` with errno and message.
pub fn py_os_error(errno: i32, message: impl Into<Cow<'static, str>>) -> PyErr {
    PyErr::new::<pyo3::exceptions::PyOSError, _>(Words(Some(errno), message.into()))
}

/// Sets `StopIteration(value)`, if possible without making the exception object.
pub fn set_stop_iteration(value: &Bound<'_, PyAny>) {
    let py = value.py();
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyBaseException>() {
        return match tuple(py, std::slice::from_ref(value)) {
            Ok(args) => PyStopIteration::new_err(args.unbind()).restore(py),
            Err(error) => error.restore(py),
        };
    }
    // SAFETY: two live objects. A value that is neither a tuple nor an exception is the only argument.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
}
