//! Reads and writes of a file at an offset, as awaitable operations. A ring carries them out; on the other engines a thread of
//! the pool does.
//!
//! The file must be seekable. On a pipe or a socket, a ring ignores the offset, and the other engines fail.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::buffer::Buffer;
use crate::py::descriptor::descriptor;
use crate::py::make::py_error;
use crate::reactor::operation::Operation;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::{FileWork, Work};

fn start(
    scheduler: &Bound<'_, Scheduler>,
    file: &Bound<'_, PyAny>,
    work: FileWork,
) -> PyResult<Py<Operation>> {
    scheduler.get().check_closed()?;
    descriptor(file)?;
    Operation::new(scheduler, file, Work::File(work))
}

/// Refuses negative offsets. -1 would mean the current position, which concurrent operations can't share.
fn checked_offset(offset: i64) -> PyResult<i64> {
    if offset < 0 {
        return Err(py_error::<PyValueError>("offset must be 0 or more"));
    }
    Ok(offset)
}

#[pymethods]
impl Scheduler {
    /// Reads once into `buffer` at `offset`; the number of bytes, perhaps fewer than asked for, 0 at the end of the
    /// file. Cancelled, it may still write into the buffer, which stays exported until it can't any more.
    #[pyo3(name = "_read_at")]
    fn read_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let buffer = Buffer::room(buffer)?;
        start(slf, fd, FileWork::Read { buffer, offset })
    }

    /// Writes `data` once at `offset`; the number of bytes, perhaps fewer than there are. Cancelled, it may be carried
    /// out all the same.
    #[pyo3(name = "_write_at")]
    fn write_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let buffer = Buffer::of(data)?;
        start(slf, fd, FileWork::Write { buffer, offset })
    }

    /// Flushes a file to storage; with `data_only` without its times. It does not wait for writes in flight.
    #[pyo3(name = "_fsync", signature = (fd, *, data_only = false))]
    fn fsync(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>, data_only: bool) -> PyResult<Py<Operation>> {
        start(slf, fd, FileWork::Sync { data_only })
    }
}
