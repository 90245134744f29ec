//! `loop.sock_*`, for sockets of the program's. What each does is in `reactor/work.rs`.

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
    fn sock_recv(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<Operation>> {
        let len = usize::try_from(n).map_err(|_| py_error::<PyValueError>("negative buffersize in recv"))?;
        Operation::new(slf, sock, Work::Receive { len })
    }

    /// Receives into a buffer; returns the number of bytes. The buffer is not exported while the operation waits.
    fn sock_recv_into(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        buf: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        Operation::new(slf, sock, Work::receive_into(buf))
    }

    /// Sends all of `data`.
    fn sock_sendall(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let buffer = Buffer::of(data)?;
        Operation::new(slf, sock, Work::Send { buffer, sent: 0 })
    }

    /// Calls `attempt()` once the socket is readable, and again if that raises `BlockingIOError`.
    #[pyo3(name = "_sock_when_readable")]
    fn sock_when_readable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        let side = Side::Read;
        Operation::new(slf, sock, Work::Call { side, attempt })
    }

    /// Calls `attempt()` once the socket is writable, and again if that raises `BlockingIOError`.
    #[pyo3(name = "_sock_when_writable")]
    fn sock_when_writable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        let side = Side::Write;
        Operation::new(slf, sock, Work::Call { side, attempt })
    }

    /// Connects to an address that has been resolved.
    #[pyo3(name = "_sock_connect")]
    fn sock_connect(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        address: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let family: i32 = sock.getattr(name!("family"))?.extract()?;
        let work = Work::Connect {
            address: Box::new(Address::parse(family, &address)?),
            shown: address.unbind(),
            begun: false,
        };
        Operation::new(slf, sock, work)
    }
}
