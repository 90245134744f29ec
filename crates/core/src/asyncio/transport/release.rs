//! How a transport lets go of its fd.

use std::os::fd::RawFd;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;

use crate::py::call::one_after_other;
use crate::py::ending::finalise;
use crate::py::errno::io_error;
use crate::reactor::scheduler::Scheduler;

/// A transport gives up its fd, which is closed if `released` says that it still belongs to the transport.
pub fn give_up(py: Python<'_>, scheduler: &Scheduler, fd: RawFd, released: PyResult<bool>) -> PyResult<()> {
    let ours = matches!(released, Ok(true));
    let given_up = scheduler
        .io
        .get()
        .and_then(|mut io| io.give_up(fd, ours).map_err(io_error));
    one_after_other(py, released.map(drop), given_up)
}

/// A transport was dropped without being closed. Its fd is closed if `release` says that it still belongs to the transport, and the
/// program is warned.
pub fn abandoned(scheduler: &Scheduler, fd: RawFd, release: impl FnOnce(Python<'_>) -> PyResult<bool>) {
    finalise(|py| {
        let ours = release(py);
        scheduler.give_up_later(fd, matches!(ours, Ok(true)));
        one_after_other(py, ours.map(drop), warn_unclosed(py, &format!("fd={fd}")))
    });
}

/// Warns of a transport that was dropped without being closed.
pub fn warn_unclosed(py: Python<'_>, which: &str) -> PyResult<()> {
    let message = std::ffi::CString::new(format!("unclosed transport {which}")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
}
