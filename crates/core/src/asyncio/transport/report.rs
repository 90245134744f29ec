//! Failures of a connection, told to the loop above.

use pyo3::prelude::*;

use crate::py::call::exception;
use crate::py::make::Text;
use crate::reactor::scheduler::Scheduler;

/// An exception of the protocol's.
pub fn protocol_failed(
    scheduler: &Py<Scheduler>,
    transport: &Bound<'_, PyAny>,
    error: &PyErr,
    message: &str,
) -> PyResult<()> {
    let hook = &scheduler.get().hooks()?.protocol_failed;
    call(hook, scheduler, transport, error, message)
}

/// An error of the connection's.
pub fn transport_failed(
    scheduler: &Py<Scheduler>,
    transport: &Bound<'_, PyAny>,
    error: &PyErr,
    message: &str,
) -> PyResult<()> {
    let hook = &scheduler.get().hooks()?.transport_failed;
    call(hook, scheduler, transport, error, message)
}

fn call(
    hook: &Py<PyAny>,
    scheduler: &Py<Scheduler>,
    transport: &Bound<'_, PyAny>,
    error: &PyErr,
    message: &str,
) -> PyResult<()> {
    let py = transport.py();
    hook.bind(py)
        .call1((scheduler, transport, exception(py, error), Text(message)))
        .map(drop)
}
