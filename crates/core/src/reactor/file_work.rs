//! What an operation does to a file, as an op of the engine's. It owns the memory that the op points at.

use std::os::fd::RawFd;
use std::sync::atomic::AtomicI32;

use proact_driver::{Op, ops};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::buffer::Buffer;
use crate::py::bytes::{bytes_memory, shorten};
use crate::py::errno::os_error;
use crate::py::make::Int;
use crate::reactor::path_work::{Path, PathWork};

/// How many ops on files went which way.
#[derive(Default)]
pub struct Ways {
    /// Carried out while they were submitted.
    pub at_once: u64,
    /// By the ring, or once a file that has readiness was ready.
    pub by_engine: u64,
    /// By the engine's pool of threads.
    pub by_pool: u64,
}

/// A buffer stays exported until the end.
pub enum FileWork {
    /// Into a fresh object, of which nobody else knows.
    Read {
        bytes: Py<PyBytes>,
        len: usize,
        offset: i64,
    },
    ReadInto {
        buffer: Buffer,
        offset: i64,
    },
    Write {
        buffer: Buffer,
        offset: i64,
    },
    ReadVec {
        vectors: Vectors,
        offset: i64,
    },
    WriteVec {
        vectors: Vectors,
        offset: i64,
    },
    Sync {
        data_only: bool,
    },
    WriteSync {
        buffer: Buffer,
        offset: i64,
        data_only: bool,
        failure: Box<AtomicI32>,
    },
    /// Of all of the bytes, to a regular file that there is.
    AppendSync {
        path: Path,
        buffer: Buffer,
        failure: Box<AtomicI32>,
    },
    Truncate {
        len: i64,
    },
    Allocate {
        mode: i32,
        offset: i64,
        len: i64,
    },
    Close,
    /// It needs no file that is open.
    Path(PathWork),
}

/// Several buffers, and their addresses for the kernel.
pub struct Vectors {
    addresses: Box<[libc::iovec]>,
    #[expect(dead_code, reason = "held, not looked at")]
    buffers: Vec<Buffer>,
}

// SAFETY: the addresses belong to the buffers, which may go to other threads.
unsafe impl Send for Vectors {}
// SAFETY: as above; nothing here changes through a shared reference.
unsafe impl Sync for Vectors {}

impl Vectors {
    pub fn new(buffers: Vec<Buffer>) -> Vectors {
        let addresses = buffers.iter().map(|buffer| libc::iovec {
            iov_base: buffer.ptr().cast(),
            iov_len: buffer.len(),
        });
        Vectors {
            addresses: addresses.collect(),
            buffers,
        }
    }

    fn read(&self, fd: RawFd, offset: i64) -> Op {
        ops::Readv {
            fd,
            iov: self.addresses.as_ptr(),
            count: self.addresses.len() as u32,
            offset,
        }
        .into()
    }

    fn write(&self, fd: RawFd, offset: i64) -> Op {
        ops::Writev {
            fd,
            iov: self.addresses.as_ptr(),
            count: self.addresses.len() as u32,
            offset,
        }
        .into()
    }
}

impl FileWork {
    /// The op. `fd` is the file's; works that name files by paths don't use it.
    pub fn op(&self, py: Python<'_>, fd: RawFd) -> Op {
        match *self {
            FileWork::Read {
                ref bytes,
                len,
                offset,
            } => {
                let buf = bytes_memory(bytes.bind(py));
                ops::Read { fd, buf, len, offset }.into()
            }
            FileWork::ReadInto { ref buffer, offset } => {
                let (buf, len) = (buffer.ptr(), buffer.len());
                ops::Read { fd, buf, len, offset }.into()
            }
            FileWork::Write { ref buffer, offset } => {
                let (buf, len) = (buffer.ptr().cast_const(), buffer.len());
                ops::Write { fd, buf, len, offset }.into()
            }
            FileWork::ReadVec { ref vectors, offset } => vectors.read(fd, offset),
            FileWork::WriteVec { ref vectors, offset } => vectors.write(fd, offset),
            FileWork::Sync { data_only } => ops::Fsync { fd, data_only }.into(),
            FileWork::WriteSync {
                ref buffer,
                offset,
                data_only,
                ref failure,
            } => ops::WriteFsync {
                fd,
                buf: buffer.ptr().cast_const(),
                len: buffer.len(),
                offset,
                data_only,
                failure: failure.as_ptr(),
            }
            .into(),
            FileWork::AppendSync {
                ref path,
                ref buffer,
                ref failure,
            } => ops::AppendFsync {
                dir: path.dir,
                path: path.path.as_ptr(),
                buf: buffer.ptr().cast_const(),
                len: buffer.len(),
                failure: failure.as_ptr(),
            }
            .into(),
            FileWork::Truncate { len } => ops::Truncate { fd, len }.into(),
            FileWork::Allocate { mode, offset, len } => ops::Allocate {
                fd,
                mode,
                offset,
                len,
            }
            .into(),
            FileWork::Close => ops::Close { fd }.into(),
            FileWork::Path(ref work) => work.op(),
        }
    }

    /// Whether the work is done to a file that is open.
    pub fn uses_fd(&self) -> bool {
        !matches!(self, FileWork::Path(_) | FileWork::AppendSync { .. })
    }

    /// What the operation returns for the op's result. A negative one raises the exception that `os` raises, with the names.
    pub fn outcome(self, py: Python<'_>, result: i32) -> PyResult<Py<PyAny>> {
        if result < 0 {
            if matches!(self, FileWork::AppendSync { .. }) {
                return Ok(py.None());
            }
            return Err(match &self {
                FileWork::Path(work) => work.error(py, result),
                _ => os_error(result),
            });
        }
        match self {
            FileWork::Read { bytes, len, .. } => {
                let bytes = bytes.into_bound(py);
                let count = result as usize;
                Ok(if count < len {
                    shorten(bytes, count)?
                } else {
                    bytes
                }
                .into_any()
                .unbind())
            }
            FileWork::WriteSync { failure, .. } | FileWork::AppendSync { failure, .. } => {
                let failure = failure.into_inner();
                let error = (failure < 0).then(|| os_error(failure).into_value(py));
                (result, error).into_py_any(py)
            }
            FileWork::Path(work) => work.outcome(py, result),
            FileWork::ReadInto { .. }
            | FileWork::Write { .. }
            | FileWork::ReadVec { .. }
            | FileWork::WriteVec { .. } => Int::new(result).into_py_any(py),
            _ => Ok(py.None()),
        }
    }

    /// The result comes, and nobody waits for it.
    pub fn discard(&self, result: i32) {
        if result >= 0 && matches!(self, FileWork::Path(PathWork::Open { .. })) {
            // SAFETY: the op has made the fd, and nobody else knows of it.
            unsafe { libc::close(result) };
        }
    }
}
