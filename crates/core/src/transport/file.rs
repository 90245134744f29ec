//! How a stream transport sends a file: after what was written before, in bounded pieces by sendfile(2), each once the
//! socket has room, so that other connections have their turn in between. Meanwhile the transport takes no writes.

use std::num::NonZero;
use std::os::fd::RawFd;

use proact_driver::{Op, syscalls};
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;

use super::stream::{Phase, Stream, StreamTransport};
use crate::call::{exception, os_error};
use crate::io::Sent;
use crate::scheduler::Scheduler;
use crate::slots::Target;

/// The most that one turn sends of a file, in bytes.
const PIECE: usize = 256 * 1024;

/// A file on its way.
pub(super) struct Sending {
    file: RawFd,
    offset: i64,
    /// How much is still to come, at most: a file may be shorter.
    left: usize,
    pub future: Py<PyAny>,
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
                    self.file_sent += count;
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
            let mut state = this.get().state.get()?;
            if state.file.is_none() {
                return Ok(false);
            }
            if state.phase >= Phase::Lost || state.sending.is_some() || !state.out.is_empty() {
                return Ok(true);
            }
            match state.send_some() {
                Ok(true) => Ok(()),
                Err(error) => Err(error),
                Ok(false) => {
                    let (fd, events) = (state.fd, libc::POLLOUT as u32);
                    let mut io = this.get().scheduler.get().io.get()?;
                    let target = Target::StreamSend(this.clone().unbind());
                    // SAFETY: a poll points at no memory.
                    match unsafe { io.submit(Op::Poll { fd, events }, target) } {
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
        let Some(future) = ended.map(|sending| sending.future) else {
            return Ok(());
        };
        if future.call_method0(py, "done")?.is_truthy(py)? {
            return Ok(());
        }
        match error {
            None => future.call_method1(py, "set_result", (py.None(),)),
            Some(error) => future.call_method1(py, "set_exception", (exception(py, &error),)),
        }
        .map(drop)
    }

    /// The connection is gone, and a file was perhaps being sent.
    pub(super) fn cut_file(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::file_ended(
            this,
            Some(PyConnectionError::new_err("Connection closed by peer")),
        )
    }
}

#[pymethods]
impl StreamTransport {
    /// Begins to send a file from `offset` on, `count` bytes at most (0: to its end); the future of its end.
    #[pyo3(name = "_send_file")]
    fn send_file(slf: &Bound<'_, Self>, file: RawFd, offset: i64, count: usize) -> PyResult<Py<PyAny>> {
        slf.get().check_writable()?;
        let future = Scheduler::create_future(slf.get().scheduler.bind(slf.py()))?;
        {
            let mut state = slf.get().state.get()?;
            if state.phase >= Phase::Closing {
                return Err(PyRuntimeError::new_err("Transport is closing"));
            }
            state.file_sent = 0;
            state.file = Some(Box::new(Sending {
                file,
                offset,
                left: if count == 0 { usize::MAX } else { count },
                future: future.clone().unbind(),
            }));
        }
        Self::send_piece(slf)?;
        Ok(future.unbind())
    }

    /// Ends the sending of a file, should it go on still; how many bytes of it were sent.
    #[pyo3(name = "_stop_file")]
    fn stop_file(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let (stopped, sent) = {
            let mut state = slf.get().state.get()?;
            let stopped = state.file.take();
            if state.waits_for_room
                && let Some(token) = state.sending
            {
                slf.get().scheduler.get().io.get()?.cancel(token.get());
            }
            (stopped, state.file_sent)
        };
        drop(stopped);
        Ok(sent)
    }

    /// Asked for by asyncio's way of sending what is no file, when it has to wait.
    #[getter(_loop)]
    fn event_loop(&self, py: Python<'_>) -> Py<Scheduler> {
        self.scheduler.clone_ref(py)
    }

    /// How `loop.sendfile` goes about it.
    #[getter(_sendfile_compatible)]
    fn sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("asyncio.constants")?
            .getattr("_SendfileMode")?
            .getattr("TRY_NATIVE")
    }
}
