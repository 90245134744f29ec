//! `recv`, `send` and `sendall` of green sockets, by CPython's own calling convention (`py/native_method.rs`): a program calls nothing else as often, and
//! a frame of Python around each cost a tenth of a small message.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyType};

use super::wire::Wire;
use crate::py::make::{Int, Name, name, tuple_of};
use crate::py::native_method::{self, Convention};

/// What a call does with a socket that has a wire, and with its only argument. `None`: that is no case of its.
type Body = for<'py> fn(
    &Bound<'py, Wire>,
    &Bound<'py, PyAny>,
    &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>>;

fn recv<'py>(
    wire: &Bound<'py, Wire>,
    socket: &Bound<'py, PyAny>,
    size: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match size.cast_exact::<PyInt>() {
        Ok(size) => Wire::recv(wire, socket, size.extract()?).map(|data| Some(data.into_bound(wire.py()))),
        Err(_) => Ok(None),
    }
}

fn sendall<'py>(
    wire: &Bound<'py, Wire>,
    socket: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    Wire::sendall(wire, socket, data)?;
    Ok(Some(wire.py().None().into_bound(wire.py())))
}

fn send<'py>(
    wire: &Bound<'py, Wire>,
    _socket: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match Wire::send(wire, data)? {
        Some(sent) => Int::new(sent)
            .into_pyobject(wire.py())
            .map(|sent| Some(sent.into_any())),
        None => Ok(None),
    }
}

/// Calls `body` if the call is of the usual kind, or else the method `otherwise`.
///
/// # Safety
/// `socket` and as many `args` as `count` says are live objects; the thread is attached.
#[inline]
unsafe fn call(
    socket: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    body: Body,
    otherwise: &'static Name,
) -> *mut ffi::PyObject {
    // SAFETY: as the caller promises.
    unsafe {
        native_method::run(|py| {
            let socket = Bound::from_borrowed_ptr(py, socket);
            if count == 1
                && let Ok(wire) = socket.getattr(name!("_calls"))?.cast_into_exact::<Wire>()
                && let Some(value) = body(&wire, &socket, &Bound::from_borrowed_ptr(py, *args))?
            {
                return Ok(value.unbind());
            }
            let args = tuple_of(py, args, count as usize)?;
            socket.call_method1(otherwise, args).map(Bound::unbind)
        })
    }
}

unsafe extern "C" fn native_recv(
    socket: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's calling convention.
    unsafe { call(socket, args, count, recv, name!("_recv")) }
}

unsafe extern "C" fn native_send(
    socket: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's calling convention.
    unsafe { call(socket, args, count, send, name!("_send")) }
}

unsafe extern "C" fn native_sendall(
    socket: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's calling convention.
    unsafe { call(socket, args, count, sendall, name!("_sendall")) }
}

/// Gives the class of green sockets its methods. What they leave over is done by `_recv`, `_send` and `_sendall`.
#[pyfunction]
#[pyo3(signature = (class, /))]
pub fn install_green_calls(class: &Bound<'_, PyType>) -> PyResult<()> {
    native_method::add(
        class,
        c"recv",
        Convention::Fast(native_recv),
        c"recv($self, bufsize, flags=0, /)\n--\n\nReceive up to `bufsize` bytes; empty at the end of the stream.",
    )?;
    native_method::add(
        class,
        c"send",
        Convention::Fast(native_send),
        c"send($self, data, flags=0, /)\n--\n\nSend as much of `data` as the socket takes; return the number of bytes.",
    )?;
    native_method::add(
        class,
        c"sendall",
        Convention::Fast(native_sendall),
        c"sendall($self, data, flags=0, /)\n--\n\nSend all of `data`.",
    )
}
