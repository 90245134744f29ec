//! How a write pipe writes: at once what the pipe takes, the rest when there is room again.

use proact_driver::{Op, ops, syscalls};
use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{POLLS, PipeTransport, WritePipeTransport};
use crate::asyncio::transport::flow::HIGH_WATER;
use crate::asyncio::transport::futile::FUTILE_WRITES;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::snapshot;
use crate::py::call::method0;
use crate::py::instance::instance;
use crate::py::make::{Int, Text, name, pair};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::Target;

impl PipeTransport {
    /// One attempt to write what is queued; the rest waits for room.
    pub(super) fn write_now(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let result = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            let fd = state.fd;
            let Some(op) = state.out.write_op(py, fd) else {
                return Ok(());
            };
            // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
            let result = unsafe { io.driver.attempt(&op) };
            if result >= 0 {
                state.out.sent(py, result as usize);
            }
            let waits = (result >= 0 || result == syscalls::AGAIN) && !state.out.is_empty();
            if waits && state.writing.is_none() {
                let events = libc::POLLOUT as u32;
                // SAFETY: a poll points at no memory.
                match unsafe {
                    io.submit(
                        Op::Poll(ops::Poll { fd, events }),
                        Target::new(this.clone().unbind(), &POLLS),
                    )
                } {
                    Sent::Pending(token) => {
                        state.writing = Some(token);
                        0
                    }
                    Sent::Ready(error) => error,
                }
            } else if waits {
                0
            } else {
                result
            }
        };
        if result < 0 {
            return Self::fatal(this, result);
        }
        let (resumes, drained) = {
            let mut state = this.get().state.get()?;
            let size = state.out.len();
            (state.flow.resumes(size), size == 0)
        };
        let told = match this.get().callee(py)? {
            Some(callee) if resumes => {
                let outcome = callee.call0(name!("resume_writing"));
                Self::report(this, outcome, "resume_writing")
            }
            _ => Ok(()),
        };
        if drained {
            Self::stop_and_finish(this)?;
        }
        told
    }

    fn maybe_pause_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let pauses = {
            let mut state = this.get().state.get()?;
            let size = state.out.len();
            state.flow.pauses(size)
        };
        // The caller is the program, possibly inside the transport's context already.
        match this.get().callee(this.py())? {
            Some(callee) if pauses => {
                let outcome = method0(&callee.protocol, name!("pause_writing"));
                Self::report(this, outcome, "pause_writing")
            }
            _ => Ok(()),
        }
    }
}

#[pymethods]
impl WritePipeTransport {
    #[new]
    #[pyo3(signature = (scheduler, pipe, protocol, extra = None))]
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        pipe: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<WritePipeTransport>> {
        let base = PipeTransport::create(scheduler, pipe, protocol, extra, true)?;
        let whole = PyClassInitializer::from(base).add_subclass(WritePipeTransport);
        instance(scheduler.py(), whole).map(Bound::unbind)
    }

    /// The reading half of `asyncio.Transport`, of which asyncio's own write pipes are instances: there is nothing to read.
    fn pause_reading(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    fn resume_reading(&self) -> PyResult<()> {
        Err(PyNotImplementedError::new_err(()))
    }

    fn is_reading(&self) -> PyResult<bool> {
        Err(PyNotImplementedError::new_err(()))
    }

    /// Writes what the pipe takes now and queues the rest; never blocks.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = snapshot(data)?;
        let this = slf.as_super();
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        this.get().scheduler.get().check_free()?;
        let idle = {
            let mut state = this.get().state.get()?;
            if state.phase >= Phase::Closing {
                state.futile += 1;
                let warns = state.futile > FUTILE_WRITES;
                drop(state);
                if warns {
                    let logger = slf.py().import(name!("asyncio.log"))?.getattr(name!("logger"))?;
                    let message = "pipe closed by peer or os.write(pipe, data) raised exception.";
                    logger.call_method1(name!("warning"), (Text(message),))?;
                }
                return Ok(());
            }
            let idle = state.out.is_empty();
            state.out.push(data);
            idle
        };
        if idle {
            PipeTransport::write_now(this)?;
        }
        PipeTransport::maybe_pause_protocol(this)
    }

    /// Writes several pieces, in their order.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let joined = slf
            .py()
            .import(name!("builtins"))?
            .getattr(name!("bytes"))?
            .call0()?
            .call_method1(name!("join"), (list_of_data,))?;
        Self::write(slf, &joined)
    }

    /// The same as closing: a pipe has no half.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        PipeTransport::begin_close(slf.as_super())
    }

    fn can_write_eof(&self) -> bool {
        true
    }

    /// Ends the transport now; what is queued is dropped.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf
            .as_super()
            .get()
            .scheduler
            .get()
            .defers(slf.as_any(), name!("abort"))?
        {
            return Ok(());
        }
        PipeTransport::lose(slf.as_super(), None)
    }

    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<Int> {
        Ok(Int::new(slf.as_super().get().state.get()?.out.len()))
    }

    /// The water marks, `(low, high)`, in bytes.
    fn get_write_buffer_limits<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = slf.as_super().get().state.get()?.flow.limits();
        pair(slf.py(), limits)
    }

    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let mut state = slf.as_super().get().state.get()?;
        state.flow.set_limits(high, low, HIGH_WATER)?;
        drop(state);
        PipeTransport::maybe_pause_protocol(slf.as_super())
    }
}
