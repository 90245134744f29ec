//! The operations of green sockets: calls that return when they are done. What each does is in `reactor/work.rs`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::address::Address;
use crate::py::buffer::Buffer;
use crate::py::make::{name, py_error};
use crate::reactor::fds::Side;
use crate::reactor::operation::Operation;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::Work;

#[pymethods]
impl Scheduler {
    /// Receives up to `n` bytes; empty at the end of the stream.
    fn _green_recv(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<PyAny>> {
        let len = usize::try_from(n).map_err(|_| py_error::<PyValueError>("negative buffersize in recv"))?;
        Operation::run(slf, sock, Work::Receive { len })
    }

    /// Receives into a buffer; returns the number of bytes.
    fn _green_recv_into(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        buf: Py<PyAny>,
    ) -> PyResult<Py<PyAny>> {
        Operation::run(slf, sock, Work::ReceiveInto { buffer: buf })
    }

    /// Sends all of `data`.
    fn _green_sendall(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let buffer = Buffer::of(data)?;
        Operation::run(slf, sock, Work::Send { buffer, sent: 0 })
    }

    /// Calls `attempt()` once the socket is readable (`write`: writable), and again if that raises `BlockingIOError`.
    fn _green_when(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        write: bool,
        attempt: Py<PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let side = Side::of(write);
        Operation::run(slf, sock, Work::Call { side, attempt })
    }

    /// Connects to an address that has been resolved.
    fn _green_connect(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        address: Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let family: i32 = sock.getattr(name!("family"))?.extract()?;
        let work = Work::Connect {
            address: Box::new(Address::parse(family, &address)?),
            shown: address.unbind(),
            begun: false,
        };
        Operation::run(slf, sock, work)
    }
}
