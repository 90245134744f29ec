//! `recv`, `send` and `sendall` of green sockets, by CPython's own calling convention (`py/native_method.rs`): a program calls nothing else as often, and
//! a frame of Python around each cost a tenth of a small message.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyType};

use super::wire::Wire;
use crate::py::make::{Int, Name, name};
use crate::py::native_method::{self, Call, native_method};
use crate::py::slot::Slot;

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

/// Where sockets have their `_calls`.
static CALLS: PyOnceLock<Option<Slot>> = PyOnceLock::new();

/// A socket's `_calls`.
///
/// # Safety
/// An instance of the class of green sockets.
#[inline]
unsafe fn calls_of<'py>(socket: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(Some(slot)) = CALLS.get(socket.py())
        // SAFETY: as the caller promises.
        && let Some(calls) = unsafe { slot.get(socket) }
    {
        return Ok(calls);
    }
    socket.getattr(name!("_calls"))
}

/// Calls `body` if the call is of the usual kind, or else the method `otherwise`.
#[inline]
fn run(call: &Call<'_>, body: Body, otherwise: &'static Name) -> PyResult<Py<PyAny>> {
    let socket = call.object();
    // SAFETY: only the class of green sockets has these methods.
    let calls = unsafe { calls_of(socket)? };
    if let Some(argument) = call.only()
        && let Ok(wire) = calls.cast_into_exact::<Wire>()
        && let Some(value) = body(&wire, socket, argument)?
    {
        return Ok(value.unbind());
    }
    call.pass_on(socket.get_type().getattr(otherwise)?.as_any())
}

native_method!(native_recv, |call| run(call, recv, name!("_recv")));
native_method!(native_send, |call| run(call, send, name!("_send")));
native_method!(native_sendall, |call| run(call, sendall, name!("_sendall")));

/// Gives the class of green sockets its methods. What they leave over is done by `_recv`, `_send` and `_sendall`.
#[pyfunction]
#[pyo3(signature = (class, /))]
pub fn install_green_calls(class: &Bound<'_, PyType>) -> PyResult<()> {
    let _ = CALLS.set(class.py(), Slot::of(class, name!("_calls"))?);
    native_method::add(
        class,
        c"recv",
        native_recv,
        c"recv($self, bufsize, flags=0, /)\n--\n\nReceive up to `bufsize` bytes; empty at the end of the stream.",
    )?;
    native_method::add(
        class,
        c"send",
        native_send,
        c"send($self, data, flags=0, /)\n--\n\nSend as much of `data` as the socket takes; return the number of bytes.",
    )?;
    native_method::add(
        class,
        c"sendall",
        native_sendall,
        c"sendall($self, data, flags=0, /)\n--\n\nSend all of `data`.",
    )
}
