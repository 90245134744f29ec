//! How a stream transport sends a file: after what was written before, by sendfile(2), in bounded pieces, so that other
//! connections have their turn in between. Each piece waits until the socket has room. Meanwhile the transport takes no writes.

pub mod sending;

use std::os::fd::RawFd;

use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;

use self::sending::{FileSending, FileToSend};
use super::base::Transport;
use super::stream::StreamTransport;
use crate::asyncio::transport::phase::Phase;
use crate::py::call::exception;
use crate::py::errno::os_error;
use crate::py::make::{name, py_error};
use crate::reactor::scheduler::Scheduler;

/// Whether an error says that the connection is gone, and not that the file can't be sent.
fn is_of_the_connection(error: i32) -> bool {
    matches!(
        -error,
        libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ESHUTDOWN | libc::ETIMEDOUT
    )
}

impl StreamTransport {
    /// Sends the next piece of the file, if its turn has come. False: no file is being sent.
    pub(super) fn send_piece(this: &Bound<'_, Self>) -> PyResult<bool> {
        let outcome = {
            if this.get().state.get()?.sending.file.is_none() {
                return Ok(false);
            }
            let mut io = this.get().scheduler.get().io.get()?;
            let state = &mut *this.get().state.get()?;
            if state.life.phase >= Phase::Lost || !state.sending.is_drained() {
                return Ok(true);
            }
            let sent = state
                .sending
                .file
                .as_mut()
                .map_or(Ok(true), |file| file.send_some(state.life.fd, &mut io));
            match sent {
                Ok(true) => Ok(()),
                Err(error) => Err(error),
                Ok(false) => match state.sending.wait_for_room(this, state.life.fd, &mut io) {
                    0 => return Ok(true),
                    error => Err(error),
                },
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

    /// Tells the caller of `sendfile`. The transport takes writes again.
    fn file_ended(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = this.py();
        let ended = this.get().state.get()?.sending.file.take();
        let Some(ended) = ended else { return Ok(()) };
        let future = &ended.of.get().future;
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
        let _claim = slf.get().scheduler.get().claim()?;
        slf.get().check_writable()?;
        let future = Scheduler::create_future(slf.get().scheduler.bind(py))?.unbind();
        let of = Py::new(py, FileSending::new(future))?;
        {
            let mut state = slf.get().state.get()?;
            if state.life.phase >= Phase::Closing {
                return Err(py_error::<PyRuntimeError>("Transport is closing"));
            }
            state.sending.file = Some(Box::new(FileToSend {
                file,
                offset,
                left: if count == 0 { usize::MAX } else { count },
                of: of.clone_ref(py),
            }));
        }
        Self::send_piece(slf)?;
        Ok(of)
    }

    /// Ends this sending of a file if it still goes on. Another one that has begun since goes on.
    #[pyo3(name = "_stop_file")]
    fn stop_file(slf: &Bound<'_, Self>, of: &Bound<'_, FileSending>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        let (stopped, closing) = {
            let mut io = slf.get().scheduler.get().io.get()?;
            let mut state = slf.get().state.get()?;
            let stopped = state.sending.give_up_file(of, &mut io);
            let idle = stopped.is_some() && state.sending.is_idle();
            (stopped, idle && state.life.phase == Phase::Closing)
        };
        drop(stopped);
        // A close has waited for the file.
        if closing {
            Self::finish_if_idle(slf)
        } else {
            Self::leave_if_idle(slf)
        }
    }

    /// asyncio's fallback for what is no file asks for this name when it has to wait.
    #[getter(_loop)]
    fn event_loop(&self, py: Python<'_>) -> Py<Scheduler> {
        self.scheduler.clone_ref(py)
    }

    /// By which way `loop.sendfile` sends.
    #[getter(_sendfile_compatible)]
    fn sendfile_compatible<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import(name!("asyncio.constants"))?
            .getattr(name!("_SendfileMode"))?
            .getattr(name!("TRY_NATIVE"))
    }
}
