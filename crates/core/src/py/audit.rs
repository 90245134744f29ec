//! Audit events: what `open()` and the functions of `os` tell the hooks of `sys.addaudithook`, with the same names and arguments.
//! Without a hook each costs a few nanoseconds.

use std::ffi::{CStr, c_char, c_int};

use pyo3::prelude::*;

unsafe extern "C" {
    /// `Py_BuildValue`'s format; -1 if a hook has raised (the C API's sys module). PyO3 does not declare it.
    fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;
}

fn outcome(py: Python<'_>, result: c_int) -> PyResult<()> {
    match result {
        0 => Ok(()),
        _ => Err(PyErr::fetch(py)),
    }
}

/// `open`, for reading: as `open()` shows it, without the "b".
pub fn open(path: &Bound<'_, PyAny>) -> PyResult<()> {
    opened(path, Some(c"r"), libc::O_RDONLY | libc::O_CLOEXEC)
}

/// `open`, for appending: as `os.open` shows it.
pub fn append(path: &Bound<'_, PyAny>) -> PyResult<()> {
    opened(path, None, libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC)
}

fn opened(path: &Bound<'_, PyAny>, mode: Option<&CStr>, flags: c_int) -> PyResult<()> {
    // SAFETY: the arguments are what the format says: an object, a string or null, an int.
    let result = unsafe {
        PySys_Audit(
            c"open".as_ptr(),
            c"Ozi".as_ptr(),
            path.as_ptr(),
            mode.map_or(std::ptr::null(), CStr::as_ptr),
            flags,
        )
    };
    outcome(path.py(), result)
}

/// An event with a path and a number or two: `os.remove`, `os.rmdir` (the directory's fd), `os.mkdir` (the mode first).
pub fn path(event: &CStr, path: &Bound<'_, PyAny>, mode: Option<u32>, dir: Option<c_int>) -> PyResult<()> {
    let (event, object, dir) = (event.as_ptr(), path.as_ptr(), dir.unwrap_or(-1));
    // SAFETY: the arguments are what each format says.
    let result = unsafe {
        match mode {
            Some(mode) => PySys_Audit(event, c"Oii".as_ptr(), object, mode as c_int, dir),
            None => PySys_Audit(event, c"Oi".as_ptr(), object, dir),
        }
    };
    outcome(path.py(), result)
}

/// An event with two paths that are relative to the current directory: `os.rename`, `os.link`; of `os.symlink` only the second one is.
pub fn paths(event: &CStr, from: &Bound<'_, PyAny>, to: &Bound<'_, PyAny>, both: bool) -> PyResult<()> {
    let none: c_int = -1;
    let (event, first, second) = (event.as_ptr(), from.as_ptr(), to.as_ptr());
    // SAFETY: the arguments are what each format says.
    let result = unsafe {
        match both {
            true => PySys_Audit(event, c"OOii".as_ptr(), first, second, none, none),
            false => PySys_Audit(event, c"OOi".as_ptr(), first, second, none),
        }
    };
    outcome(from.py(), result)
}
