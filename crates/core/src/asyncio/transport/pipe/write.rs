//! How a write pipe writes: at once as much as the pipe takes, and the rest when there is room again.

use proact_driver::syscalls;
use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{PipeTransport, WritePipeTransport};
use crate::asyncio::transport::base::Transport;
use crate::asyncio::transport::futile::futile_write;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::snapshot;
use crate::py::instance::instance;
use crate::py::make::{Int, name, pair};
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::Completes;
use crate::reactor::target::Target;
use proact_driver::Completion;

static HAS_ROOM: Completes<PipeTransport> =
    Completes::<PipeTransport>::new(|pipe, arrived| PipeTransport::has_room(pipe, &arrived.completion))
        .that_owns(PipeTransport::owned);

impl PipeTransport {
    /// One attempt to write what is queued; the rest waits for room.
    pub(super) fn write_now(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let result = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            let fd = state.life.fd;
            let Some(op) = state.out.write_op(py, fd) else {
                return Ok(());
            };
            // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
            let result = unsafe { io.driver.attempt(&op) };
            if result >= 0 {
                state.out.sent(py, result as usize);
            }
            let waits = (result >= 0 || result == syscalls::AGAIN) && !state.out.is_empty();
            match result {
                _ if !waits => result,
                _ if !state.room.is_nothing() => 0,
                _ => {
                    let target = Target::new(this.clone().unbind(), &HAS_ROOM);
                    state.room.poll(&mut io, fd, libc::POLLOUT, target).unwrap_or(0)
                }
            }
        };
        if result < 0 {
            return Self::failed(this, result);
        }
        let drained = this.get().state.get()?.out.is_empty();
        let told = Self::maybe_resume_protocol(this);
        if drained {
            Self::stop_and_finish(this)?;
        }
        told
    }

    /// The pipe has room, or an error to tell.
    fn has_room(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let phase = {
            let mut state = this.get().state.get()?;
            state.room.over();
            state.life.phase
        };
        let outcome = match completion.result {
            _ if phase >= Phase::Lost => Ok(()),
            result if result == -libc::ECANCELED => Ok(()),
            error if error < 0 => Self::failed(this, error),
            _ => Self::write_now(this),
        };
        Self::settle_after(this, outcome)
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

    /// A write pipe has nothing to read. asyncio's write pipes have these methods because they are `asyncio.Transport`s.
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
        let _claim = this.get().scheduler.get().claim()?;
        let idle = {
            let mut state = this.get().state.get()?;
            if state.life.phase >= Phase::Closing {
                let before = state.life.futile;
                state.life.futile += 1;
                drop(state);
                let message = "pipe closed by peer or os.write(pipe, data) raised exception.";
                return futile_write(slf.py(), before, message);
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

    /// Closes the transport: a pipe carries data one way only.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        PipeTransport::begin_close(slf.as_super())
    }

    fn can_write_eof(&self) -> bool {
        true
    }

    /// Ends the transport now; what is queued is dropped.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.as_super().get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("abort"))? else {
            return Ok(());
        };
        PipeTransport::lose(slf.as_super(), None)
    }

    fn get_write_buffer_size(slf: &Bound<'_, Self>) -> PyResult<Int> {
        Ok(Int::new(slf.as_super().get().state.get()?.out.len()))
    }

    /// The water marks, `(low, high)`, in bytes.
    fn get_write_buffer_limits<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = slf.as_super().get().state.get()?.life.flow.limits();
        pair(slf.py(), limits)
    }

    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let _claim = slf.as_super().get().scheduler.get().claim()?;
        PipeTransport::set_limits(slf.as_super(), high, low)
    }
}
