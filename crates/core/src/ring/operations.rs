//! What can be asked of a bare ring: each method checks its arguments, exports its buffer and queues one op.

use proact_driver::{Op, ops};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Ring;
use crate::py::buffer::Buffer;
use crate::py::make::{Int, py_error};

fn checked_offset(offset: i64) -> PyResult<i64> {
    if offset < -1 {
        return Err(py_error::<PyValueError>(
            "offset must be 0 or more, or -1 for the current position",
        ));
    }
    Ok(offset)
}

#[pymethods]
impl Ring {
    /// Accepts one connection of a listening socket. Result: its fd, close-on-exec and non-blocking, which is the
    /// caller's to close.
    #[pyo3(signature = (fd, *, data = None))]
    fn accept(&self, fd: Bound<'_, PyAny>, data: Option<Py<PyAny>>) -> PyResult<Int> {
        let op = |fd, _, _| Op::Accept(ops::Accept { fd });
        // SAFETY: it points at nothing.
        unsafe { self.queue(fd, None, data, op) }
    }

    /// Receives once into a writable buffer. Result: bytes; 0 is the end of the stream.
    #[pyo3(signature = (fd, buffer, *, data = None))]
    fn recv(
        &self,
        fd: Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        data: Option<Py<PyAny>>,
    ) -> PyResult<Int> {
        let buffer = Some(Buffer::room(buffer)?);
        let op = |fd, buf, len| {
            Op::Recv(ops::Recv {
                fd,
                buf,
                len,
                flags: 0,
            })
        };
        // SAFETY: it points at the buffer.
        unsafe { self.queue(fd, buffer, data, op) }
    }

    /// Sends once from a buffer. Result: bytes, perhaps fewer than there are. Never raises SIGPIPE.
    #[pyo3(signature = (fd, buffer, *, data = None))]
    fn send(
        &self,
        fd: Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        data: Option<Py<PyAny>>,
    ) -> PyResult<Int> {
        let buffer = Some(Buffer::of(buffer)?);
        let op = |fd, buf: *mut u8, len| {
            Op::Send(ops::Send {
                fd,
                buf,
                len,
                flags: 0,
            })
        };
        // SAFETY: it points at the buffer.
        unsafe { self.queue(fd, buffer, data, op) }
    }

    /// Reads into a writable buffer at an offset in bytes; -1: at the current position, as pipes and terminals need it.
    /// Result: bytes, perhaps fewer than asked for; 0 is the end of the file.
    #[pyo3(
        signature = (fd, buffer, offset = -1, *, data = None),
        text_signature = "($self, fd, buffer, offset=-1, *, data=None)"
    )]
    fn read(
        &self,
        fd: Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        offset: i64,
        data: Option<Py<PyAny>>,
    ) -> PyResult<Int> {
        let offset = checked_offset(offset)?;
        let buffer = Some(Buffer::room(buffer)?);
        let op = |fd, buf, len| Op::Read(ops::Read { fd, buf, len, offset });
        // SAFETY: it points at the buffer.
        unsafe { self.queue(fd, buffer, data, op) }
    }

    /// Writes a buffer at an offset, as in `read`. Result: bytes, perhaps fewer than there are.
    #[pyo3(
        signature = (fd, buffer, offset = -1, *, data = None),
        text_signature = "($self, fd, buffer, offset=-1, *, data=None)"
    )]
    fn write(
        &self,
        fd: Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        offset: i64,
        data: Option<Py<PyAny>>,
    ) -> PyResult<Int> {
        let offset = checked_offset(offset)?;
        let buffer = Some(Buffer::of(buffer)?);
        let op = |fd, buf: *mut u8, len| Op::Write(ops::Write { fd, buf, len, offset });
        // SAFETY: it points at the buffer.
        unsafe { self.queue(fd, buffer, data, op) }
    }

    /// Flushes a file to storage; with `data_only` not its times (fdatasync). Result: 0. Says nothing of writes in
    /// flight: wait for them first.
    #[pyo3(signature = (fd, *, data_only = false, data = None))]
    fn fsync(&self, fd: Bound<'_, PyAny>, data_only: bool, data: Option<Py<PyAny>>) -> PyResult<Int> {
        let op = |fd, _, _| Op::Fsync(ops::Fsync { fd, data_only });
        // SAFETY: it points at nothing.
        unsafe { self.queue(fd, None, data, op) }
    }

    /// Waits once until the fd is readable (`select.POLLIN`) or writable (`select.POLLOUT`), one of the two. Result: the
    /// events, POLLERR and POLLHUP perhaps among them or instead.
    #[pyo3(signature = (fd, mask, *, data = None))]
    fn poll(&self, fd: Bound<'_, PyAny>, mask: i16, data: Option<Py<PyAny>>) -> PyResult<Int> {
        if mask != libc::POLLIN && mask != libc::POLLOUT {
            return Err(py_error::<PyValueError>("mask must be POLLIN or POLLOUT"));
        }
        let events = mask as u32;
        let op = |fd, _, _| Op::Poll(ops::Poll { fd, events });
        // SAFETY: it points at nothing.
        unsafe { self.queue(fd, None, data, op) }
    }
}
