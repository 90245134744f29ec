//! `loop.sock_*` for sockets of the program's own.

use std::os::fd::RawFd;

use proact_driver::{Op, syscalls};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBlockingIOError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::call::{io_error, os_error};
use crate::operation::{self, Operation, Work};
use crate::scheduler::Scheduler;

/// The fd of a socket, which debug mode wants non-blocking.
fn socket_fd(scheduler: &Bound<'_, Scheduler>, socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let this = scheduler.get();
    this.check_closed()?;
    if this.is_debug() && !socket.call_method0("gettimeout")?.eq(0)? {
        return Err(PyValueError::new_err("the socket must be non-blocking"));
    }
    scheduler.get().check_plain_socket(socket)?;
    let fd: RawFd = socket.call_method0(intern!(socket.py(), "fileno"))?.extract()?;
    if fd < 0 {
        return Err(os_error(-libc::EBADF));
    }
    this.check_not_a_transport(socket.py(), fd)?;
    this.io.get()?.evict(fd, socket.as_ptr());
    Ok(fd)
}

/// One attempt at a receive into a buffer that is exported only while it lasts.
fn receive_into(scheduler: &Bound<'_, Scheduler>, fd: RawFd, buffer: &Bound<'_, PyAny>) -> PyResult<usize> {
    let buffer = Buffer::room(buffer)?;
    let (buf, len) = (buffer.ptr(), buffer.len());
    let (kept, leaving) = {
        let io = &mut *scheduler.get().io.get()?;
        (operation::kept_of(io, fd, len), io.leaving.heirs(fd).is_some())
    };
    if leaving {
        // A cancelled receive may yet have taken what comes first.
        return Err(PyBlockingIOError::new_err((libc::EAGAIN, "not ready")));
    }
    if let Some(kept) = kept {
        // SAFETY: exported, writable, and `kept` is no longer than it was asked to be.
        unsafe { std::ptr::copy_nonoverlapping(kept.as_ptr(), buf, kept.len()) };
        return Ok(kept.len());
    }
    // SAFETY: exported and writable while the call lasts.
    match unsafe {
        syscalls::attempt(&Op::Recv {
            fd,
            buf,
            len,
            flags: 0,
        })
    } {
        syscalls::AGAIN => Err(PyBlockingIOError::new_err((libc::EAGAIN, "not ready"))),
        error if error < 0 => Err(os_error(error)),
        count => Ok(count as usize),
    }
}

/// Tries `attempt` now, and again whenever the socket has one of `events`.
fn when_ready(
    scheduler: &Bound<'_, Scheduler>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    events: i16,
    attempt: Bound<'_, PyAny>,
) -> PyResult<Py<Operation>> {
    match attempt.call0() {
        Err(error) if error.is_instance_of::<PyBlockingIOError>(scheduler.py()) => Operation::start(
            scheduler,
            socket,
            Work::Ready {
                fd,
                events,
                then: attempt.unbind(),
            },
        ),
        outcome => Operation::done(scheduler, outcome.map(Bound::unbind)),
    }
}

#[pymethods]
impl Scheduler {
    /// Receives up to `n` bytes; empty at the end of the stream. A cancelled receive loses no byte.
    fn sock_recv(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<Operation>> {
        let n = usize::try_from(n).map_err(|_| PyValueError::new_err("negative buffersize in recv"))?;
        let fd = socket_fd(slf, sock)?;
        operation::receive(slf, sock, fd, n)
    }

    /// Receives into a buffer; the number of bytes. The buffer is not held while waiting.
    fn sock_recv_into(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        buf: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let fd = socket_fd(slf, sock)?;
        let attempt = Attempt {
            scheduler: slf.clone().unbind(),
            fd,
            buffer: buf.unbind(),
        };
        when_ready(
            slf,
            sock,
            fd,
            libc::POLLIN,
            Bound::new(slf.py(), attempt)?.into_any(),
        )
    }

    /// Sends all of `data`.
    fn sock_sendall(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let fd = socket_fd(slf, sock)?;
        operation::send_all(slf, sock, fd, Buffer::of(data)?)
    }

    /// `attempt()` once the socket is readable; it raises `BlockingIOError` where it was not after all.
    #[pyo3(name = "_sock_when_readable")]
    fn sock_when_readable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let fd = socket_fd(slf, sock)?;
        when_ready(slf, sock, fd, libc::POLLIN, attempt)
    }

    /// The same once it is writable.
    #[pyo3(name = "_sock_when_writable")]
    fn sock_when_writable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let fd = socket_fd(slf, sock)?;
        when_ready(slf, sock, fd, libc::POLLOUT, attempt)
    }

    /// Connects to an address that is resolved already.
    #[pyo3(name = "_sock_connect")]
    fn sock_connect(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        address: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let fd = socket_fd(slf, sock)?;
        let family: i32 = sock.getattr(intern!(slf.py(), "family"))?.extract()?;
        let parsed = Box::new(Address::parse(family, &address)?);
        let connect = Operation::start(
            slf,
            sock,
            Work::Connect {
                fd,
                address: parsed,
                shown: address.unbind(),
            },
        )?;
        // It has begun when this returns: the program may go on to wait for the connection in a call that blocks.
        slf.get().io.get()?.driver.flush().map_err(io_error)?;
        Ok(connect)
    }
}

/// `sock_recv_into`'s attempt, as a callable.
#[pyclass(frozen, module = "proact._core")]
struct Attempt {
    scheduler: Py<Scheduler>,
    fd: RawFd,
    buffer: Py<PyAny>,
}

#[pymethods]
impl Attempt {
    fn __call__(&self, py: Python<'_>) -> PyResult<usize> {
        receive_into(self.scheduler.bind(py), self.fd, self.buffer.bind(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.buffer)
    }
}
