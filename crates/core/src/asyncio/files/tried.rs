//! Calls that answer at once: with what the kernel can do without waiting for a disk, or with None. Then the caller awaits one of
//! `waited.rs`. They are bounded in each turn of the loop (`budget.rs`).

use std::ffi::CStr;
use std::os::fd::RawFd;

use proact_driver::{Call, Op, ops, syscalls};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::budget::Budget;
use super::paths::{encoded, path_at};
use crate::py::audit;
use crate::py::buffer::Buffer;
use crate::py::bytes::{bytes_memory, shorten, uninit_bytes};
use crate::py::errno::{file_error, os_error};
use crate::py::make::{Int, dict, name, py_error};
use crate::py::status::{Status, stat_result};
use crate::reactor::file_work::Ways;
use crate::reactor::io::Io;
use crate::reactor::scheduler::Scheduler;

/// A file that was opened, as `_try_open` returns it: the fd, the type bits of its mode, its size.
type Opened = (RawFd, u32, u64);

impl Scheduler {
    /// The engine, if this turn has room for a call of so many bytes.
    fn admitted(&self, bytes: usize) -> PyResult<bool> {
        self.check_closed()?;
        let turn = self.turns();
        Ok(self.io.get()?.shared.get::<Budget>().admits(turn, bytes))
    }

    fn answered(&self, has_answer: bool) -> PyResult<()> {
        let mut io = self.io.get()?;
        io.shared.get::<Budget>().answered(has_answer);
        Ok(())
    }
}

/// The result of a call, or `None` if only a wait can tell.
fn known(result: i32) -> Option<Result<i32, i32>> {
    match result {
        syscalls::AGAIN => None,
        error if error < 0 => Some(Err(error)),
        value => Some(Ok(value)),
    }
}

fn status_of(io: &mut Io, fd: RawFd) -> Result<Status, i32> {
    let mut status = Status::default();
    match io.driver.call(Call::Status {
        fd,
        room: status.get_mut(),
    }) {
        error if error < 0 => Err(error),
        _ => Ok(status),
    }
}

/// The most bytes of a file that are read to its end at once. A longer one is read in pieces, with turns of the loop in between.
const MOST: u64 = 1 << 20;

/// Reads a file that is cached from `offset` to its end: `None` if only a wait can.
fn rest<'py>(
    py: Python<'py>,
    io: &mut Io,
    fd: RawFd,
    size: u64,
    offset: i64,
) -> PyResult<Option<Result<Bound<'py, PyBytes>, i32>>> {
    let left = size.saturating_sub(offset as u64);
    if left > MOST {
        return Ok(None);
    }
    // One more than is left shows the end without another call.
    let room = left as usize + 1;
    let bytes = uninit_bytes(py, room)?;
    let mut count = 0;
    loop {
        let op = Op::Read(ops::Read {
            fd,
            buf: bytes_memory(&bytes).wrapping_add(count),
            len: room - count,
            offset: offset + count as i64,
        });
        // SAFETY: a fresh object of that length, which nobody else has seen.
        match known(unsafe { io.driver.attempt(&op) }) {
            None => return Ok(None),
            Some(Err(error)) => return Ok(Some(Err(error))),
            Some(Ok(0)) => return shorten(bytes, count).map(|bytes| Some(Ok(bytes))),
            Some(Ok(more)) => count += more as usize,
        }
        if count == room {
            // It has grown meanwhile, or its size is not known, as in /proc.
            return Ok(None);
        }
        if size > 0 && count as u64 == left {
            return shorten(bytes, count).map(|bytes| Some(Ok(bytes)));
        }
    }
}

/// What was found at a path.
enum Found<'py> {
    Content(Bound<'py, PyBytes>),
    /// A FIFO that is open for reading, in non-blocking mode. It stays open, because a writer that waited for a reader has got one.
    Fifo(RawFd),
}

/// A whole regular file that is cached, opened and closed: `None` if only a wait can.
fn whole<'py>(py: Python<'py>, io: &mut Io, path: &CStr) -> PyResult<Option<Result<Found<'py>, i32>>> {
    let (dir, flags) = (libc::AT_FDCWD, libc::O_RDONLY);
    let fd = match known(io.driver.call(Call::OpenCached { dir, path, flags })) {
        None => return Ok(None),
        Some(Err(error)) => return Ok(Some(Err(error))),
        Some(Ok(fd)) => fd,
    };
    let content = match status_of(io, fd) {
        Ok(status) if status.kind() == libc::S_IFREG => rest(py, io, fd, status.size(), 0)
            .map(|content| content.map(|content| content.map(Found::Content))),
        Ok(status) if status.kind() == libc::S_IFDIR => Ok(Some(Err(-libc::EISDIR))),
        Ok(status) if status.kind() == libc::S_IFIFO => return Ok(Some(Ok(Found::Fifo(fd)))),
        Ok(_) => Ok(None),
        Err(error) => Ok(Some(Err(error))),
    };
    io.driver.call(Call::Close { fd });
    content
}

#[pymethods]
impl Scheduler {
    /// Opens a file whose path is cached: `(fd, type bits of its mode, size)`. Of a file that is neither regular nor a directory the fd
    /// is in non-blocking mode, and nothing was waited for.
    #[pyo3(name = "_try_open", signature = (path, flags, dir_fd = None))]
    fn try_open(
        &self,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        flags: i32,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Option<Opened>> {
        let at = path_at(path, dir_fd)?;
        if !self.admitted(0)? {
            return Ok(None);
        }
        let opened = {
            let mut io = self.io.get()?;
            let call = Call::OpenCached {
                dir: at.dir,
                path: &at.path,
                flags,
            };
            known(io.driver.call(call)).map(|opened| {
                let fd = opened?;
                let status = status_of(&mut io, fd).inspect_err(|_| {
                    io.driver.call(Call::Close { fd });
                })?;
                let kind = status.kind();
                if flags & libc::O_NONBLOCK == 0 && (kind == libc::S_IFREG || kind == libc::S_IFDIR) {
                    io.driver.call(Call::SetFlags { fd, flags });
                }
                Ok((fd, kind, status.size()))
            })
        };
        self.answered(opened.is_some())?;
        opened
            .transpose()
            .map_err(|error: i32| file_error(py, error, &[at.shown]))
    }

    /// Reads once, `size` bytes at most.
    #[pyo3(name = "_try_read")]
    fn try_read<'py>(
        &self,
        py: Python<'py>,
        fd: RawFd,
        size: usize,
        offset: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if offset < 0 || !self.admitted(size)? {
            return Ok(None);
        }
        let bytes = uninit_bytes(py, size)?;
        let buf = bytes_memory(&bytes);
        let op = Op::Read(ops::Read {
            fd,
            buf,
            len: size,
            offset,
        });
        // SAFETY: a fresh object of that length, which nobody else has seen.
        let result = known(unsafe { self.attempt(&op) }?);
        self.answered(result.is_some())?;
        match result {
            None => Ok(None),
            Some(Err(error)) => Err(os_error(error)),
            Some(Ok(count)) if count as usize == size => Ok(Some(bytes)),
            Some(Ok(count)) => shorten(bytes, count as usize).map(Some),
        }
    }

    /// Reads once into a buffer; the number of bytes.
    #[pyo3(name = "_try_read_into")]
    fn try_read_into(&self, fd: RawFd, buffer: &Bound<'_, PyAny>, offset: i64) -> PyResult<Option<i32>> {
        let buffer = Buffer::room(buffer)?;
        if offset < 0 || !self.admitted(buffer.len())? {
            return Ok(None);
        }
        let (buf, len) = (buffer.ptr(), buffer.len());
        let op = Op::Read(ops::Read { fd, buf, len, offset });
        // SAFETY: the buffer is exported while the call lasts.
        let result = known(unsafe { self.attempt(&op) }?);
        self.answered(result.is_some())?;
        result.transpose().map_err(os_error)
    }

    /// Reads a regular file from `offset` to its end.
    #[pyo3(name = "_try_read_rest")]
    fn try_read_rest<'py>(
        &self,
        py: Python<'py>,
        fd: RawFd,
        offset: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        if offset < 0 {
            return Err(py_error::<PyValueError>("offset must be 0 or more"));
        }
        let status = status_of(&mut *self.io.get()?, fd).map_err(os_error)?;
        let left = status.size().saturating_sub(offset as u64);
        if status.kind() != libc::S_IFREG || left > MOST || !self.admitted(left as usize)? {
            return Ok(None);
        }
        let content = rest(py, &mut *self.io.get()?, fd, status.size(), offset)?;
        self.answered(content.is_some())?;
        content.transpose().map_err(os_error)
    }

    /// The status of an open file, which no disk is waited for.
    #[pyo3(name = "_fstat")]
    fn fstat<'py>(&self, py: Python<'py>, fd: RawFd) -> PyResult<Bound<'py, PyAny>> {
        let status = status_of(&mut *self.io.get()?, fd).map_err(os_error)?;
        stat_result(py, &status)
    }

    /// The status of a file whose path is cached.
    #[pyo3(name = "_try_stat", signature = (path, *, follow = true, dir_fd = None))]
    fn try_stat<'py>(
        &self,
        py: Python<'py>,
        path: &Bound<'py, PyAny>,
        follow: bool,
        dir_fd: Option<RawFd>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let at = path_at(path, dir_fd)?;
        if !self.admitted(0)? {
            return Ok(None);
        }
        let flags = libc::O_PATH | if follow { 0 } else { libc::O_NOFOLLOW };
        let status = {
            let mut io = self.io.get()?;
            let call = Call::OpenCached {
                dir: at.dir,
                path: &at.path,
                flags,
            };
            known(io.driver.call(call)).map(|opened| {
                let fd = opened?;
                let status = status_of(&mut io, fd);
                io.driver.call(Call::Close { fd });
                status
            })
        };
        self.answered(status.is_some())?;
        match status {
            None => Ok(None),
            Some(Ok(status)) => stat_result(py, &status).map(Some),
            Some(Err(error)) => Err(file_error(py, error, &[at.shown])),
        }
    }

    /// The contents of files from `paths[start]` on, as many as this turn has room for: a list of `bytes`, of the exceptions for
    /// files that can't be read, of the fds of FIFOs, which were opened without waiting, and of None for those that only a wait
    /// can read.
    #[pyo3(name = "_try_read_files")]
    fn try_read_files<'py>(
        &self,
        py: Python<'py>,
        paths: &Bound<'py, PyList>,
        start: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let contents = PyList::empty(py);
        let mut last = 0;
        for index in start..paths.len() {
            if !self.admitted(last)? {
                break;
            }
            let path = paths.get_item(index)?;
            // Before the engine is taken: a PathLike object is a call into Python.
            let encoded = encoded(&path)?;
            audit::open(&path)?;
            let content = whole(py, &mut *self.io.get()?, &encoded)?;
            self.answered(content.is_some())?;
            match content {
                None => contents.append(py.None())?,
                Some(Ok(Found::Fifo(fd))) => contents.append(fd)?,
                Some(Ok(Found::Content(bytes))) => {
                    last = bytes.as_bytes().len();
                    contents.append(bytes)?;
                }
                Some(Err(error)) => {
                    contents.append(file_error(py, error, &[path.unbind()]).into_value(py))?;
                }
            }
        }
        Ok(contents)
    }

    /// Whether this turn of the loop has no room for more of these calls.
    #[pyo3(name = "_tried_enough")]
    fn tried_enough(&self) -> PyResult<bool> {
        let turn = self.turns();
        Ok(self.io.get()?.shared.get::<Budget>().is_spent(turn))
    }

    /// How many calls and ops on files went which way (`EventLoop.stats`).
    #[pyo3(name = "_file_counts")]
    fn file_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let _claim = self.claim()?;
        let (at_once, by_file, by_budget, by_engine, by_pool) = {
            let mut io = self.io.get()?;
            let [answered, by_file, by_budget] = io.shared.get::<Budget>().counts;
            let ways = io.shared.get::<Ways>();
            (
                answered + ways.at_once,
                by_file,
                by_budget,
                ways.by_engine,
                ways.by_pool,
            )
        };
        let counts = dict(py)?;
        counts.set_item(name!("at_once"), Int::new(at_once))?;
        counts.set_item(name!("refused_by_file"), Int::new(by_file))?;
        counts.set_item(name!("refused_by_budget"), Int::new(by_budget))?;
        counts.set_item(name!("by_engine"), Int::new(by_engine))?;
        counts.set_item(name!("by_pool"), Int::new(by_pool))?;
        Ok(counts)
    }
}
