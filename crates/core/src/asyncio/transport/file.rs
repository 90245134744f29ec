//! How a stream transport sends a file: after what was written before, in bounded pieces by sendfile(2), each once the
//! socket has room, so that other connections have their turn in between. Meanwhile the transport takes no writes.

use std::num::NonZero;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use proact_driver::{Op, ops, syscalls};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::stream::{Stream, StreamTransport};
use crate::asyncio::transport::phase::Phase;
use crate::py::call::exception;
use crate::py::errno::os_error;
use crate::py::make::{Int, name, py_error};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::slots::Target;

/// The most that one turn sends of a file, in bytes.
const PIECE: usize = 256 * 1024;

/// One `sendfile`, as whoever asked for it holds it: each has its own end and its own count.
#[pyclass(frozen, module = "proact._core")]
pub struct FileSending {
    /// Done when the file has been sent, or can't be.
    #[pyo3(get)]
    future: Py<PyAny>,
    sent: AtomicUsize,
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
pub(super) struct Sending {
    file: RawFd,
    offset: i64,
    /// How much is still to come, at most: a file may be shorter.
    left: usize,
    pub of: Py<FileSending>,
}

/// Whether an error says that the connection is gone, and not that the file can't be sent.
fn is_of_the_connection(error: i32) -> bool {
    matches!(
        -error,
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ESHUTDOWN | libc::ETIMEDOUT
    )
}

impl Stream {
    /// Sends a piece; whether the file is at its end.
    fn send_some(&mut self) -> Result<bool, i32> {
        let Some(sending) = &mut self.file else {
            return Ok(true);
        };
        let mut budget = PIECE;
        while budget > 0 && sending.left > 0 {
            match syscalls::send_file(self.fd, sending.file, sending.offset, sending.left.min(budget)) {
                0 => return Ok(true),
                syscalls::AGAIN => break,
                error if error < 0 => return Err(error),
                count => {
                    sending.offset += i64::from(count);
                    let count = count as usize;
                    sending.left -= count;
                    sending.of.get().sent.fetch_add(count, Ordering::Relaxed);
                    budget -= count.min(budget);
                }
            }
        }
        Ok(sending.left == 0)
    }
}

impl StreamTransport {
    /// Goes on with the file, if one is being sent and it is its turn. False: there is none.
    pub(super) fn send_piece(this: &Bound<'_, Self>) -> PyResult<bool> {
        let outcome = {
            if this.get().state.get()?.file.is_none() {
                return Ok(false);
            }
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            if state.phase >= Phase::Lost || state.sending.is_some() || !state.out.is_empty() {
                return Ok(true);
            }
            match state.send_some() {
                Ok(true) => Ok(()),
                Err(error) => Err(error),
                Ok(false) => {
                    let (fd, events) = (state.fd, libc::POLLOUT as u32);
                    let target = Target::StreamSend(this.clone().unbind());
                    // SAFETY: a poll points at no memory.
                    match unsafe { io.submit(Op::Poll(ops::Poll { fd, events }), target) } {
                        Sent::Pending(token) => {
                            state.sending = NonZero::new(token);
                            state.waits_for_room = true;
                            return Ok(true);
                        }
                        Sent::Ready(error) => Err(error),
                    }
                }
            }
        };
        match outcome {
            Ok(()) => {
                Self::file_ended(this, None)?;
                Self::drained(this)?;
            }
            Err(error) => {
                Self::file_ended(this, Some(os_error(error)))?;
                if is_of_the_connection(error) {
                    Self::fatal(this, os_error(error), "Fatal write error on socket transport")?;
                } else {
                    Self::drained(this)?;
                }
            }
        }
        Ok(true)
    }

    /// Tells whoever waits for the file; the transport takes writes again.
    fn file_ended(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = this.py();
        let ended = this.get().state.get()?.file.take();
        let Some(Sending { of, .. }) = ended.map(|sending| *sending) else {
            return Ok(());
        };
        let future = &of.get().future;
        if future.call_method0(py, name!("done"))?.is_truthy(py)? {
            return Ok(());
        }
        match error {
            None => future.call_method1(py, name!("set_result"), (py.None(),)),
            Some(error) => future.call_method1(py, name!("set_exception"), (exception(py, &error),)),
        }
        .map(drop)
    }

    /// The connection is gone, and a file was perhaps being sent.
    pub(super) fn cut_file(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::file_ended(
            this,
            Some(py_error::<PyConnectionError>("Connection closed by peer")),
        )
    }
}

#[pymethods]
impl StreamTransport {
    /// Begins to send a file from `offset` on, `count` bytes at most (0: to its end).
    #[pyo3(name = "_send_file")]
    fn send_file(slf: &Bound<'_, Self>, file: RawFd, offset: i64, count: usize) -> PyResult<Py<FileSending>> {
        let py = slf.py();
        slf.get().check_writable()?;
        let future = Scheduler::create_future(slf.get().scheduler.bind(py))?.unbind();
        let of = Py::new(
            py,
            FileSending {
                future,
                sent: AtomicUsize::new(0),
            },
        )?;
        {
            slf.get().scheduler.get().check_free()?;
            let mut state = slf.get().state.get()?;
            if state.phase >= Phase::Closing {
                return Err(py_error::<PyRuntimeError>("Transport is closing"));
            }
            state.file = Some(Box::new(Sending {
                file,
                offset,
                left: if count == 0 { usize::MAX } else { count },
                of: of.clone_ref(py),
            }));
        }
        Self::send_piece(slf)?;
        Ok(of)
    }

    /// Ends this sending of a file, should it go on still; another one that has begun since goes on.
    #[pyo3(name = "_stop_file")]
    fn stop_file(slf: &Bound<'_, Self>, of: &Bound<'_, FileSending>) -> PyResult<()> {
        let (stopped, closing) = {
            let mut io = slf.get().scheduler.get().io.get()?;
            let mut state = slf.get().state.get()?;
            let stopped = state.file.take_if(|sending| sending.of.is(of));
            if stopped.is_some()
                && state.waits_for_room
                && let Some(token) = state.sending
            {
                io.cancel(token.get());
            }
            let idle = stopped.is_some() && state.sending.is_none();
            (stopped, idle && state.phase == Phase::Closing)
        };
        drop(stopped);
        // A close has waited for the file.
        if closing {
            Self::finish_if_idle(slf)
        } else {
            Ok(())
        }
    }

    /// Asked for by asyncio's way of sending what is no file, when it has to wait.
    #[getter(_loop)]
    fn event_loop(&self, py: Python<'_>) -> Py<Scheduler> {
        self.scheduler.clone_ref(py)
    }

    /// How `loop.sendfile` goes about it.
    #[getter(_sendfile_compatible)]
    fn sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(name!("asyncio.constants"))?
            .getattr(name!("_SendfileMode"))?
            .getattr(name!("TRY_NATIVE"))
    }
}
