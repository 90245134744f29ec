//! The hot methods of gevent's sockets, by CPython's own calling convention (`py/native_method.rs`).
//!
//! A receive makes its call at once. If nothing is there, the greenlet waits in the watcher that gevent has made for the socket,
//! by `hub_wait.rs`, and then makes the call. So bytes leave the socket only into the receive that returns them: a greenlet that
//! is killed has received nothing, and the program may use the fd in any way at any time. Whatever is unusual (flags, a subclass,
//! TLS, a socket that does not wait or is closed) is left to gevent's own method, which begins anew.

use std::os::fd::RawFd;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyFloat, PyInt, PyMemoryView, PySlice, PyType};

use super::hub_wait::{self, Limit};
use super::kinds::GeventIo;
use crate::py::buffer::Buffer;
use crate::py::descriptor::{fd_behind_head, fd_is_behind_head};
use crate::py::make::{Int, Name, name, py_error};
use crate::py::native_method::{self, Call, native_method};
use crate::py::slot::Slot;
use crate::reactor::fds::Side;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::{Work, send_now};

/// gevent's classes, and its own methods.
struct Sockets {
    class: Py<PyType>,
    /// The class of the socket within one that is not TLS.
    inner: Py<PyType>,
    /// Where sockets keep what `Field` names.
    slots: [Option<Slot>; 5],
    recv: Py<PyAny>,
    recv_into: Py<PyAny>,
    send: Py<PyAny>,
    sendall: Py<PyAny>,
    wait: Py<PyAny>,
}

/// The attributes of gevent's sockets that are used here.
#[derive(Clone, Copy)]
enum Field {
    Inner,
    ReadEvent,
    WriteEvent,
    Timeout,
    Hub,
}

impl Field {
    const ALL: [Field; 5] = [
        Field::Inner,
        Field::ReadEvent,
        Field::WriteEvent,
        Field::Timeout,
        Field::Hub,
    ];

    fn name(self) -> &'static Name {
        match self {
            Field::Inner => name!("_sock"),
            Field::ReadEvent => name!("_read_event"),
            Field::WriteEvent => name!("_write_event"),
            Field::Timeout => name!("timeout"),
            Field::Hub => name!("hub"),
        }
    }
}

static SOCKETS: PyOnceLock<Sockets> = PyOnceLock::new();

fn sockets(py: Python<'_>) -> PyResult<&Sockets> {
    SOCKETS
        .get(py)
        .ok_or_else(|| py_error::<PyRuntimeError>("gevent's sockets were not configured"))
}

/// What a call uses of a socket: the watcher of one side, the loop, the fd.
struct Parts<'py> {
    io: Bound<'py, GeventIo>,
    scheduler: Bound<'py, Scheduler>,
    fd: RawFd,
}

/// What a call does with its argument. `None`: that is left to gevent's own method.
type Body =
    for<'py> fn(&Sockets, &Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>;

impl Sockets {
    #[inline]
    fn field<'py>(&self, socket: &Bound<'py, PyAny>, field: Field) -> PyResult<Bound<'py, PyAny>> {
        // A subclass may have a property in a slot's place.
        if let Some(slot) = self.slots[field as usize]
            && socket.get_type().is(&self.class)
            // SAFETY: an instance of the class.
            && let Some(value) = unsafe { slot.get(socket) }
        {
            return Ok(value);
        }
        socket.getattr(field.name())
    }

    /// `None`: the socket is not a plain one, or is closed, or its loop is another one, or runs in another thread.
    #[inline]
    fn parts<'py>(&self, socket: &Bound<'py, PyAny>, side: Side) -> PyResult<Option<Parts<'py>>> {
        let py = socket.py();
        let inner = self.field(socket, Field::Inner)?;
        if !inner.get_type().is(&self.inner) {
            return Ok(None);
        }
        let event = match side {
            Side::Read => Field::ReadEvent,
            Side::Write => Field::WriteEvent,
        };
        let Ok(io) = self.field(socket, event)?.cast_into_exact::<GeventIo>() else {
            return Ok(None);
        };
        let Ok(scheduler) = io.as_super().get().owner.get().scheduler(py) else {
            return Ok(None);
        };
        if scheduler.get().io.runs_elsewhere() {
            return Ok(None);
        }
        // SAFETY: a socket of the class, of which a sample was looked at.
        let fd = unsafe { fd_behind_head(&inner) };
        let scheduler = scheduler.into_bound(py);
        Ok(Some(Parts { io, scheduler, fd }))
    }

    fn receive<'py>(
        &self,
        socket: &Bound<'py, PyAny>,
        mut work: Work,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        while let Some(Parts { io, scheduler, fd }) = self.parts(socket, Side::Read)? {
            if let Some(value) = work.attempt(&scheduler, fd)? {
                return Ok(Some(value.into_bound(socket.py())));
            }
            if !self.wait(socket, &io, None, true)? {
                break;
            }
        }
        Ok(None)
    }

    /// Sends what the socket takes at once. `None`: nothing, or this is left to gevent.
    fn send_now(&self, socket: &Bound<'_, PyAny>, bytes: &[u8]) -> PyResult<Option<usize>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match self.parts(socket, Side::Write)? {
            Some(Parts { scheduler, fd, .. }) => {
                let sent = send_now(&scheduler, fd, bytes)?;
                Ok((sent > 0).then_some(sent))
            }
            None => Ok(None),
        }
    }

    /// Leaves the thread to the hub until the socket is ready, for as long as its timeout says. As [`hub_wait::wait`].
    fn wait<'py>(
        &self,
        socket: &Bound<'py, PyAny>,
        io: &Bound<'py, GeventIo>,
        error: Option<Bound<'py, PyAny>>,
        edges: bool,
    ) -> PyResult<bool> {
        let timeout = self.field(socket, Field::Timeout)?;
        let limit = match timeout.cast_exact::<PyFloat>() {
            Ok(seconds) if seconds.value() > 0.0 => Some(Limit {
                seconds: seconds.value(),
                error,
            }),
            Err(_) if timeout.is_none() => None,
            _ => return Ok(false),
        };
        hub_wait::wait(&self.field(socket, Field::Hub)?, io.as_super(), limit, edges)
    }
}

fn recv<'py>(
    sockets: &Sockets,
    socket: &Bound<'py, PyAny>,
    size: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(size) = size.cast_exact::<PyInt>() else {
        return Ok(None);
    };
    match size.extract::<isize>() {
        Ok(size) if size > 0 => sockets.receive(socket, Work::Receive { len: size as usize }),
        _ => Ok(None),
    }
}

fn recv_into<'py>(
    sockets: &Sockets,
    socket: &Bound<'py, PyAny>,
    buffer: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    // What can't be written to is refused by gevent's method, in its words.
    if Buffer::room(buffer).is_err() {
        return Ok(None);
    }
    let buffer = buffer.clone().unbind();
    sockets.receive(socket, Work::receive_into(buffer))
}

fn send<'py>(
    sockets: &Sockets,
    socket: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(bytes) = data.cast_exact::<PyBytes>() else {
        return Ok(None);
    };
    match sockets.send_now(socket, bytes.as_bytes())? {
        Some(sent) => Ok(Some(Int::new(sent).into_pyobject(data.py())?.into_any())),
        None => Ok(None),
    }
}

fn sendall<'py>(
    sockets: &Sockets,
    socket: &Bound<'py, PyAny>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = data.py();
    // A subclass may send in its own way.
    let (Ok(bytes), true) = (data.cast_exact::<PyBytes>(), socket.get_type().is(&sockets.class)) else {
        return Ok(None);
    };
    let bytes = bytes.as_bytes();
    match sockets.send_now(socket, bytes)? {
        Some(sent) if sent == bytes.len() => Ok(Some(py.None().into_bound(py))),
        Some(sent) => {
            let rest = PyMemoryView::from(data)?.get_item(PySlice::new(py, sent as isize, isize::MAX, 1))?;
            sockets.sendall.bind(py).call1((socket, rest)).map(Some)
        }
        None => Ok(None),
    }
}

/// Calls `body` if there is one argument, or else gevent's own method.
#[inline]
fn run(call: &Call<'_>, body: Body, otherwise: fn(&Sockets) -> &Py<PyAny>) -> PyResult<Py<PyAny>> {
    let sockets = sockets(call.py())?;
    if let Some(argument) = call.only()
        && let Some(value) = body(sockets, call.object(), argument)?
    {
        return Ok(value.unbind());
    }
    call.pass_on(otherwise(sockets).bind(call.py()))
}

native_method!(native_recv, |call| run(call, recv, |own| &own.recv));
native_method!(native_recv_into, |call| run(call, recv_into, |own| &own
    .recv_into));
native_method!(native_send, |call| run(call, send, |own| &own.send));
native_method!(native_sendall, |call| run(call, sendall, |own| &own.sendall));

// `_wait(watcher, timeout_exc=None)`: by this, gevent's other methods wait.
native_method!(native_wait, |call| {
    let sockets = sockets(call.py())?;
    // gevent passes the exception by its name, and nothing else has one.
    let mut is_known = call.count() >= 1 && call.len() <= 2;
    let mut error = None;
    if let Some(given) = call.get(1) {
        // SAFETY: a live object.
        is_known &= given.is_none() || unsafe { ffi::PyExceptionInstance_Check(given.as_ptr()) != 0 };
        error = (!given.is_none()).then(|| given.clone());
    }
    if is_known
        && let Some(Ok(io)) = call.get(0).map(|io| io.cast_exact::<GeventIo>())
        && sockets.wait(call.object(), io, error, false)?
    {
        return Ok(call.py().None());
    }
    call.pass_on(sockets.wait.bind(call.py()))
});

/// Gives gevent's class of sockets its methods. `sample` is a socket of the class within. A second call has no effect.
///
/// # Errors
/// `RuntimeError` if the sockets of this Python have an unknown layout. Then nothing is changed.
#[pyfunction]
#[pyo3(signature = (class, sample, /))]
pub fn install_gevent_calls(class: &Bound<'_, PyType>, sample: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = class.py();
    if SOCKETS.get(py).is_some() {
        return Ok(());
    }
    if !fd_is_behind_head(sample)? {
        let message = "CPython's sockets are not as expected";
        return Err(py_error::<PyRuntimeError>(message));
    }
    let mut slots = [None; Field::ALL.len()];
    for (slot, field) in slots.iter_mut().zip(Field::ALL) {
        *slot = Slot::of(class, field.name())?;
    }
    let made = Sockets {
        class: class.clone().unbind(),
        inner: sample.get_type().unbind(),
        slots,
        recv: class.getattr(name!("recv"))?.unbind(),
        recv_into: class.getattr(name!("recv_into"))?.unbind(),
        send: class.getattr(name!("send"))?.unbind(),
        sendall: class.getattr(name!("sendall"))?.unbind(),
        wait: class.getattr(name!("_wait"))?.unbind(),
    };
    if SOCKETS.set(py, made).is_err() {
        // Another thread was faster.
        return Ok(());
    }
    let add = |name, method, doc| native_method::add(class, name, method, doc);
    add(
        c"recv",
        native_recv,
        c"recv($self, bufsize, flags=0, /)\n--\n\nReceive up to `bufsize` bytes; empty at the end of the stream.",
    )?;
    add(
        c"recv_into",
        native_recv_into,
        c"recv_into($self, buffer, nbytes=0, flags=0, /)\n--\n\nReceive into a buffer; return the number of bytes.",
    )?;
    add(
        c"send",
        native_send,
        c"send($self, data, flags=0, timeout=None)\n--\n\nSend as much of `data` as the socket takes; return the number of bytes.",
    )?;
    add(
        c"sendall",
        native_sendall,
        c"sendall($self, data, flags=0)\n--\n\nSend all of `data`.",
    )?;
    add(
        c"_wait",
        native_wait,
        c"_wait($self, watcher, timeout_exc=None)\n--\n\nWait until the watcher's event has come.",
    )
}
