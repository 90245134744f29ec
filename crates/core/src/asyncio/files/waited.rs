//! Awaitable operations on files. Reads and writes have an offset; -1 is the current position, for files that can't seek.

use std::os::fd::RawFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::paths::path_at;
use crate::py::audit;
use crate::py::buffer::Buffer;
use crate::py::bytes::uninit_bytes;
use crate::py::descriptor::descriptor;
use crate::py::make::py_error;
use crate::py::status::Status;
use crate::reactor::file_work::{FileWork, Vectors};
use crate::reactor::operation::Operation;
use crate::reactor::path_work::PathWork;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::work::Work;

fn on_file(
    scheduler: &Bound<'_, Scheduler>,
    file: &Bound<'_, PyAny>,
    work: FileWork,
) -> PyResult<Py<Operation>> {
    scheduler.get().check_closed()?;
    descriptor(file)?;
    Operation::new(scheduler, file, Work::File(work))
}

fn on_path(scheduler: &Bound<'_, Scheduler>, work: PathWork) -> PyResult<Py<Operation>> {
    scheduler.get().check_closed()?;
    let none = scheduler.py().None();
    let work = Work::File(FileWork::Path(work));
    Operation::new(scheduler, none.bind(scheduler.py()), work)
}

fn checked_offset(offset: i64) -> PyResult<i64> {
    if offset < -1 {
        return Err(py_error::<PyValueError>("offset must be 0 or more"));
    }
    Ok(offset)
}

fn vectors(
    buffers: Vec<Bound<'_, PyAny>>,
    export: fn(&Bound<'_, PyAny>) -> PyResult<Buffer>,
) -> PyResult<Vectors> {
    let exported = buffers.iter().map(export).collect::<PyResult<Vec<_>>>()?;
    Ok(Vectors::new(exported))
}

#[pymethods]
impl Scheduler {
    /// Reads once, `size` bytes at most; empty at the end of the file.
    #[pyo3(name = "_read_bytes_at")]
    fn read_bytes_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        size: usize,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let bytes = uninit_bytes(slf.py(), size)?.unbind();
        on_file(
            slf,
            fd,
            FileWork::Read {
                bytes,
                len: size,
                offset,
            },
        )
    }

    /// Reads once into `buffer`; the number of bytes, perhaps fewer than asked for, 0 at the end of the file. Cancelled, it may
    /// still write into the buffer, which stays exported until it can't any more.
    #[pyo3(name = "_read_at")]
    fn read_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        buffer: &Bound<'_, PyAny>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let buffer = Buffer::room(buffer)?;
        on_file(slf, fd, FileWork::ReadInto { buffer, offset })
    }

    /// Writes `data` once; the number of bytes, perhaps fewer than there are. Cancelled, it may be carried out all the same.
    #[pyo3(name = "_write_at")]
    fn write_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let buffer = Buffer::of(data)?;
        on_file(slf, fd, FileWork::Write { buffer, offset })
    }

    /// As `_read_at`, into several buffers, one after the other.
    #[pyo3(name = "_readv_at")]
    fn readv_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        buffers: Vec<Bound<'_, PyAny>>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let vectors = vectors(buffers, Buffer::room)?;
        on_file(slf, fd, FileWork::ReadVec { vectors, offset })
    }

    /// As `_write_at`, of several buffers.
    #[pyo3(name = "_writev_at")]
    fn writev_at(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        buffers: Vec<Bound<'_, PyAny>>,
        offset: i64,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let vectors = vectors(buffers, Buffer::of)?;
        on_file(slf, fd, FileWork::WriteVec { vectors, offset })
    }

    /// Flushes a file to storage; with `data_only` without its times. It does not wait for writes in flight.
    #[pyo3(name = "_fsync", signature = (fd, *, data_only = false))]
    fn fsync(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>, data_only: bool) -> PyResult<Py<Operation>> {
        on_file(slf, fd, FileWork::Sync { data_only })
    }

    /// Writes all of `data` and flushes the file, in one go of a thread: the number of bytes, and the error that prevented the rest or the
    /// flush. Raises the error if there was nothing that it did not prevent. Cancelled, it may be carried out all the same.
    #[pyo3(name = "_write_sync", signature = (fd, data, offset, *, data_only = false))]
    fn write_sync(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offset: i64,
        data_only: bool,
    ) -> PyResult<Py<Operation>> {
        let offset = checked_offset(offset)?;
        let buffer = Buffer::of(data)?;
        let failure = Box::default();
        on_file(
            slf,
            fd,
            FileWork::WriteSync {
                buffer,
                offset,
                data_only,
                failure,
            },
        )
    }

    /// Appends all of `data` to a regular file that there is and flushes it, in one go of a thread: the number of bytes, and the error that
    /// prevented the rest or the flush. `None`, and nothing is written, if it could not be opened or is not regular.
    #[pyo3(name = "_append_sync")]
    fn append_sync(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        slf.get().check_closed()?;
        audit::append(path)?;
        let none = slf.py().None();
        let work = FileWork::AppendSync {
            path: path_at(path, None)?,
            buffer: Buffer::of(data)?,
            failure: Box::default(),
        };
        Operation::new(slf, none.bind(slf.py()), Work::File(work))
    }

    #[pyo3(name = "_truncate")]
    fn truncate(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>, size: i64) -> PyResult<Py<Operation>> {
        on_file(slf, fd, FileWork::Truncate { len: size })
    }

    #[pyo3(name = "_allocate")]
    fn allocate(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        mode: i32,
        offset: i64,
        size: i64,
    ) -> PyResult<Py<Operation>> {
        on_file(
            slf,
            fd,
            FileWork::Allocate {
                mode,
                offset,
                len: size,
            },
        )
    }

    /// Closes an fd, once no operation in flight uses it.
    #[pyo3(name = "_close_file")]
    fn close_file(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>) -> PyResult<Py<Operation>> {
        on_file(slf, fd, FileWork::Close)
    }

    /// Opens a file; the fd. One that is opened after a cancel is closed.
    #[pyo3(name = "_open_file", signature = (path, flags, mode = 0o666, dir_fd = None))]
    fn open_file(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        flags: i32,
        mode: u32,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Py<Operation>> {
        let path = path_at(path, dir_fd)?;
        on_path(slf, PathWork::Open { path, flags, mode })
    }

    #[pyo3(name = "_stat", signature = (path, *, follow = true, dir_fd = None))]
    fn stat(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        follow: bool,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Py<Operation>> {
        let path = path_at(path, dir_fd)?;
        let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        let status = Box::<Status>::default();
        on_path(slf, PathWork::Status { path, flags, status })
    }

    /// Removes a name: of a directory with `directory`.
    #[pyo3(name = "_unlink", signature = (path, *, directory = false, dir_fd = None))]
    fn unlink(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        directory: bool,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Py<Operation>> {
        let (flags, event) = match directory {
            true => (libc::AT_REMOVEDIR, c"os.rmdir"),
            false => (0, c"os.remove"),
        };
        audit::path(event, path, None, dir_fd)?;
        let path = path_at(path, dir_fd)?;
        on_path(slf, PathWork::Unlink { path, flags })
    }

    #[pyo3(name = "_mkdir", signature = (path, mode = 0o777, dir_fd = None))]
    fn mkdir(
        slf: &Bound<'_, Self>,
        path: &Bound<'_, PyAny>,
        mode: u32,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Py<Operation>> {
        audit::path(c"os.mkdir", path, Some(mode), dir_fd)?;
        let path = path_at(path, dir_fd)?;
        on_path(slf, PathWork::Mkdir { path, mode })
    }

    /// Makes a symbolic link at `path` to `target`.
    #[pyo3(name = "_symlink")]
    fn symlink(
        slf: &Bound<'_, Self>,
        target: &Bound<'_, PyAny>,
        path: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        audit::paths(c"os.symlink", target, path, false)?;
        let (target, path) = (path_at(target, None)?, path_at(path, None)?);
        on_path(slf, PathWork::Symlink { target, path })
    }

    /// Renames a file; `flags` are those of `renameat2(2)`.
    #[pyo3(name = "_rename", signature = (source, target, flags = 0))]
    fn rename(
        slf: &Bound<'_, Self>,
        source: &Bound<'_, PyAny>,
        target: &Bound<'_, PyAny>,
        flags: u32,
    ) -> PyResult<Py<Operation>> {
        audit::paths(c"os.rename", source, target, true)?;
        let (from, to) = (path_at(source, None)?, path_at(target, None)?);
        on_path(slf, PathWork::Rename { from, to, flags })
    }

    /// Gives a file a second name.
    #[pyo3(name = "_link", signature = (source, target, *, follow = true))]
    fn link(
        slf: &Bound<'_, Self>,
        source: &Bound<'_, PyAny>,
        target: &Bound<'_, PyAny>,
        follow: bool,
    ) -> PyResult<Py<Operation>> {
        audit::paths(c"os.link", source, target, true)?;
        let (from, to) = (path_at(source, None)?, path_at(target, None)?);
        let flags = if follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
        on_path(slf, PathWork::Link { from, to, flags })
    }
}
