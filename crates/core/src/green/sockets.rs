//! The rarer operations of green sockets: calls that return when they are done. What each does is in `reactor/work.rs`.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use crate::py::address::Address;
use crate::py::descriptor::number;
use crate::py::make::name;
use crate::reactor::fds::Side;
use crate::reactor::hub::Hub;
use crate::reactor::operation::Operation;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::Work;

fn run(sock: &Bound<'_, PyAny>, work: Work) -> PyResult<Py<PyAny>> {
    Operation::run(&Hub::scheduler_here(sock.py())?, sock, work)
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
    end_operations(scheduler.get(), sock.py(), number(sock)?)
}

/// Ends the operations that wait on an fd, if its loop does not run in another thread.
pub fn end_operations(scheduler: &Scheduler, py: Python<'_>, fd: RawFd) -> PyResult<()> {
    if scheduler.is_closed() || scheduler.is_forked() || scheduler.io.runs_elsewhere() {
        return Ok(());
    }
    let _claim = scheduler.claim()?;
    scheduler.io.get()?.evict_all(py, fd);
    Ok(())
}
