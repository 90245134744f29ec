//! `async for line in file`: lines that are there already, each without a coroutine and without an exception that carries it.
//!
//! The iterator is the awaitable of each line, too: `__anext__` puts the line aside, and the await, which follows at once, takes
//! it. When no line is left, `__anext__` returns a coroutine of the file's, which brings more.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBytes, PyString};

use crate::py::cell::SharedCell;
use crate::py::make::{py_error, set_stop_iteration};

/// What is cut into lines.
enum Text {
    None,
    Bytes(Py<PyBytes>),
    Str(Py<PyString>),
}

struct Fed {
    text: Text,
    /// The lines that are left: from here to there, where a line ends.
    next: usize,
    end: usize,
    /// The line that is about to be awaited.
    ready: Option<Py<PyAny>>,
}

const NOTHING: Fed = Fed {
    text: Text::None,
    next: 0,
    end: 0,
    ready: None,
};

impl Fed {
    /// Cuts off the next line. There is one.
    fn cut(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match &self.text {
            Text::None => Err(awaited_already()),
            Text::Bytes(bytes) => {
                let left = bytes.as_bytes(py).get(self.next..self.end).unwrap_or_default();
                let length = memchr(left).unwrap_or(left.len());
                self.next += length.max(1);
                // SAFETY: `length` bytes of a live object.
                unsafe {
                    let made = ffi::PyBytes_FromStringAndSize(left.as_ptr().cast(), length as isize);
                    Bound::from_owned_ptr_or_err(py, made).map(Bound::unbind)
                }
            }
            Text::Str(text) => {
                let (text, start, end) = (text.as_ptr(), self.next as isize, self.end as isize);
                // SAFETY: a live string, and places within it or past its end, which is allowed.
                unsafe {
                    let found = ffi::PyUnicode_FindChar(text, u32::from('\n'), start, end, 1);
                    let stop = if found < 0 { end } else { found + 1 };
                    self.next = stop as usize;
                    Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_Substring(text, start, stop))
                        .map(Bound::unbind)
                }
            }
        }
    }
}

/// The length of the first line, with its end.
fn memchr(bytes: &[u8]) -> Option<usize> {
    // SAFETY: the bytes are valid for their length.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize + 1)
}

/// An asynchronous iterator over lines.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Lines {
    /// A coroutine function. It is called with this object, may `feed` it, and returns a line or raises `StopAsyncIteration`.
    refill: Py<PyAny>,
    fed: SharedCell<Fed>,
}

impl Lines {
    fn next_awaitable(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        {
            let mut fed = this.fed.lock();
            if fed.next < fed.end {
                let line = fed.cut(py)?;
                fed.ready = Some(line);
                return Ok(slf.clone().into_any().unbind());
            }
        }
        this.refill.call1(py, (slf,))
    }
}

/// `__anext__` without PyO3's frame around it, which takes as long as all the rest.
unsafe extern "C" fn anext(lines: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: Python calls the slot of the class with an object of it, attached.
    let lines =
        unsafe { Bound::from_borrowed_ptr(Python::assume_attached(), lines).cast_into_unchecked::<Lines>() };
    match Lines::next_awaitable(&lines) {
        Ok(awaitable) => awaitable.into_ptr(),
        Err(error) => {
            error.restore(lines.py());
            std::ptr::null_mut()
        }
    }
}

/// The await of a line. Its result needs no exception that carries it.
unsafe extern "C" fn send(
    lines: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: as above.
    let lines =
        unsafe { Bound::from_borrowed_ptr(Python::assume_attached(), lines).cast_into_unchecked::<Lines>() };
    let line = lines.get().fed.lock().ready.take();
    let (line, kind) = match line {
        Some(line) => (line.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
        None => {
            awaited_already().restore(lines.py());
            (std::ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR)
        }
    };
    // SAFETY: Python passes room for one pointer.
    unsafe { *result = line };
    kind
}

fn awaited_already() -> PyErr {
    py_error::<PyRuntimeError>("this line was awaited already")
}

/// Puts the quick functions into the class.
pub fn install(py: Python<'_>) {
    let class = Lines::type_object_raw(py);
    // SAFETY: a class that Python has made, before any object of it exists.
    unsafe {
        if let Some(slots) = (*class).tp_as_async.as_mut() {
            slots.am_anext = Some(anext);
            slots.am_send = Some(send);
        }
    }
}

#[pymethods]
impl Lines {
    #[new]
    fn new(refill: Py<PyAny>) -> Lines {
        let fed = SharedCell::new(NOTHING);
        Lines { refill, fed }
    }

    /// Iterates over the lines of `bytes` or of a `str` between two places: the second is after a line's end.
    fn feed(&self, text: &Bound<'_, PyAny>, start: usize, end: usize) -> PyResult<()> {
        let text = match text.cast::<PyBytes>() {
            Ok(bytes) => Text::Bytes(bytes.clone().unbind()),
            Err(_) => Text::Str(text.cast::<PyString>()?.clone().unbind()),
        };
        let fed = Fed {
            text,
            next: start,
            end,
            ready: None,
        };
        let old = std::mem::replace(&mut *self.fed.lock(), fed);
        drop(old);
        Ok(())
    }

    /// Ends the iteration over what was fed: how much of it was not taken.
    fn rest(&self) -> usize {
        let old = std::mem::replace(&mut *self.fed.lock(), NOTHING);
        old.end.saturating_sub(old.next)
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        Lines::next_awaitable(slf).map(Some)
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let line = slf.get().fed.lock().ready.take();
        match line {
            Some(line) => {
                // PyO3's slot returns NULL for `None`, and so passes on the exception that is set.
                set_stop_iteration(line.bind(slf.py()));
                Ok(None)
            }
            None => Err(awaited_already()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.refill)?;
        Ok(())
    }
}
