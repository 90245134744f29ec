//! The operations of green sockets: calls that return when they are done. What each does is in `reactor/work.rs`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::address::Address;
use crate::py::buffer::Buffer;
use crate::py::descriptor::number;
use crate::py::make::{name, py_error};
use crate::reactor::fds::Side;
use crate::reactor::hub::Hub;
use crate::reactor::operation::Operation;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::Work;

fn run(sock: &Bound<'_, PyAny>, work: Work) -> PyResult<Py<PyAny>> {
    Operation::run(&Hub::scheduler_here(sock.py())?, sock, work)
}

/// Receives up to `n` bytes; empty at the end of the stream.
#[pyfunction]
#[pyo3(signature = (sock, n, /))]
pub fn green_recv(sock: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<PyAny>> {
    let len = usize::try_from(n).map_err(|_| py_error::<PyValueError>("negative buffersize in recv"))?;
    run(sock, Work::Receive { len })
}

/// Receives into a buffer; returns the number of bytes. The buffer is not exported while the greenlet waits.
#[pyfunction]
#[pyo3(signature = (sock, buf, /))]
pub fn green_recv_into(sock: &Bound<'_, PyAny>, buf: Py<PyAny>) -> PyResult<Py<PyAny>> {
    run(sock, Work::ReceiveInto { buffer: buf })
}

/// Sends all of `data`.
#[pyfunction]
#[pyo3(signature = (sock, data, /))]
pub fn green_sendall(sock: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let buffer = Buffer::of(data)?;
    run(sock, Work::Send { buffer, sent: 0 })
}

/// Calls `attempt()` once the socket is readable (`write`: writable), and again if that raises `BlockingIOError`.
#[pyfunction]
#[pyo3(signature = (sock, write, attempt, /))]
pub fn green_when(sock: &Bound<'_, PyAny>, write: bool, attempt: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let side = Side::of(write);
    run(sock, Work::Call { side, attempt })
}

/// Connects to an address that has been resolved.
#[pyfunction]
#[pyo3(signature = (sock, address, /))]
pub fn green_connect(sock: &Bound<'_, PyAny>, address: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let family: i32 = sock.getattr(name!("family"))?.extract()?;
    let work = Work::Connect {
        address: Box::new(Address::parse(family, &address)?),
        shown: address.unbind(),
        begun: false,
    };
    run(sock, work)
}

/// Ends what greenlets wait for on a socket that is about to be closed: they get `OSError` with EBADF.
#[pyfunction]
#[pyo3(signature = (scheduler, sock, /))]
pub fn green_close(scheduler: &Bound<'_, Scheduler>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let this = scheduler.get();
    if this.is_closed() || this.is_forked() {
        return Ok(());
    }
    let fd = number(sock)?;
    let _claim = this.claim()?;
    this.io.get()?.evict_all(sock.py(), fd);
    Ok(())
}
