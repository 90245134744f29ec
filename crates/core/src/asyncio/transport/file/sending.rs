//! A file on its way through a socket: what is left of it, and the object that the caller of `sendfile` holds.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use proact_driver::{Call, syscalls};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::make::Int;
use crate::reactor::io::Io;

/// The most that one turn sends of a file, in bytes.
const ONE_TURN: usize = 1024 * 1024;

/// One `sendfile`, as its caller holds it: each has its own end and its own count.
#[pyclass(frozen, module = "proact._core")]
pub struct FileSending {
    /// Done when the file has been sent, or can't be.
    #[pyo3(get)]
    pub(in crate::asyncio::transport) future: Py<PyAny>,
    sent: AtomicUsize,
}

impl FileSending {
    pub(in crate::asyncio::transport) fn new(future: Py<PyAny>) -> FileSending {
        FileSending {
            future,
            sent: AtomicUsize::new(0),
        }
    }
}

#[pymethods]
impl FileSending {
    /// How many bytes the socket has taken.
    #[getter]
    fn sent(&self) -> Int {
        Int::new(self.sent.load(Ordering::Relaxed))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.future)
    }
}

/// A file on its way.
pub(in crate::asyncio::transport) struct FileToSend {
    pub file: RawFd,
    pub offset: i64,
    /// How much is still to come, at most: a file may be shorter.
    pub left: usize,
    pub of: Py<FileSending>,
}

impl FileToSend {
    /// Sends a piece; whether the file is at its end.
    pub fn send_some(&mut self, socket: RawFd, io: &mut Io) -> Result<bool, i32> {
        let mut budget = ONE_TURN;
        while budget > 0 && self.left > 0 {
            let call = Call::SendFile {
                socket,
                file: self.file,
                offset: self.offset,
                len: self.left.min(budget),
            };
            match io.driver.call(call) {
                0 => return Ok(true),
                syscalls::AGAIN => break,
                error if error < 0 => return Err(error),
                count => {
                    self.offset += i64::from(count);
                    let count = count as usize;
                    self.left -= count;
                    self.of.get().sent.fetch_add(count, Ordering::Relaxed);
                    budget -= count.min(budget);
                }
            }
        }
        Ok(self.left == 0)
    }
}
