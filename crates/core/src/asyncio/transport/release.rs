//! How a transport lets go of its fd.

use std::os::fd::RawFd;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;

use crate::py::call::one_after_other;
use crate::py::ending::finalise;
use crate::py::errno::io_error;
use crate::reactor::scheduler::Scheduler;

/// An fd that its transport has done with: closed if it is ours to close, as `released` says.
pub fn give_up(py: Python<'_>, scheduler: &Scheduler, fd: RawFd, released: PyResult<bool>) -> PyResult<()> {
    let ours = matches!(released, Ok(true));
    let given_up = scheduler
        .io
        .get()
        .and_then(|mut io| io.give_up(fd, ours).map_err(io_error));
    one_after_other(py, released.map(drop), given_up)
}

/// A transport that nobody closed is gone: its fd is closed if it is `ours`, which `release` finds out, its number is free
/// for others, and the program is told.
pub fn abandoned(scheduler: &Scheduler, fd: RawFd, release: impl FnOnce(Python<'_>) -> PyResult<bool>) {
    finalise(|py| {
        let ours = release(py);
        scheduler.give_up_later(fd, matches!(ours, Ok(true)));
        one_after_other(py, ours.map(drop), warn_unclosed(py, &format!("fd={fd}")))
    });
}

/// Tells of a transport that nobody closed; `which` says more of it.
pub fn warn_unclosed(py: Python<'_>, which: &str) -> PyResult<()> {
    let message = std::ffi::CString::new(format!("unclosed transport {which}")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
}
