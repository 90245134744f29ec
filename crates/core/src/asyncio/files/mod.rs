//! Files: what `proact.fs` asks of the loop. There are two kinds of call. Those of `tried.rs` answer at once with what the kernel
//! can do without waiting for a disk, or with None. Those of `waited.rs` are awaitable operations: a ring carries them out, and
//! a thread of the pool on the other engines.

pub mod aligned;
mod budget;
pub mod lines;
mod paths;
mod tried;
mod waited;

use std::os::fd::RawFd;

use pyo3::prelude::*;

use crate::py::errno::os_error;

/// Whether the reading end of a FIFO has a writer, or has had one since it was opened. Nothing is read.
#[pyfunction]
pub fn has_writer(fd: RawFd) -> PyResult<bool> {
    match proact_driver::syscalls::has_writer(fd) {
        error if error < 0 => Err(os_error(error)),
        value => Ok(value > 0),
    }
}
