//! Pipes, FIFOs, terminals, and sockets used as such: one transport that reads, one that writes.
//!
//! The engine says when the fd is ready, and the transport makes the call. The pipe is in non-blocking mode: a read by the ring
//! would gain nothing there (the kernel answers EAGAIN, and a poll must follow), and a poll ends at once when it is cancelled,
//! whatever the fd is. The pipe object belongs to the program, and its own `close` closes it. `pipe/read.rs` reads and
//! `pipe/write.rs` writes.

mod read;
mod write;

use std::os::fd::RawFd;

use proact_driver::Call;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBrokenPipeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::base::{Life, Living, Transport, wake};
use super::in_flight::InFlight;
use super::outbox::Outbox;
use crate::asyncio::transport::phase::Phase;
use crate::asyncio::transport::release;
use crate::py::call::{current_context, one_after_other};
use crate::py::cell::LoopCell;
use crate::py::ending::finalise;
use crate::py::errno::os_error;
use crate::py::make::{Text, dict, name, py_error};
use crate::reactor::io::Io;
use crate::reactor::scheduler::Scheduler;

pub(super) struct State {
    life: Life,
    /// Waits for something to read; when writing, for the last reader to go.
    polling: InFlight,
    paused: bool,
    out: Outbox,
    /// Waits for room.
    room: InFlight,
}

impl Living for State {
    fn life(&self) -> &Life {
        &self.life
    }

    fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    fn queued(&self) -> usize {
        self.out.len()
    }
}

impl State {
    /// Whether no op is in flight.
    fn is_idle(&self) -> bool {
        self.polling.is_nothing() && self.room.is_nothing()
    }

    /// Asks what is in flight to end.
    fn stop(&mut self, io: &mut Io) {
        self.polling.stop(io);
        self.room.stop(io);
    }
}

/// What both have in common. It has a `__dict__`, because programs put attributes on transports and replace methods.
#[pyclass(frozen, subclass, dict, weakref, module = "proact._core")]
pub struct PipeTransport {
    scheduler: Py<Scheduler>,
    context: Py<PyAny>,
    writes: bool,
    /// Whether the fd tells that the other end is closed: a terminal does not.
    tells_of_peer: bool,
    state: LoopCell<State>,
}

/// A transport that reads, as `asyncio.ReadTransport`.
#[pyclass(frozen, extends = PipeTransport, module = "proact._core")]
pub struct ReadPipeTransport;

/// A transport that writes, as `asyncio.WriteTransport`.
#[pyclass(frozen, extends = PipeTransport, module = "proact._core")]
pub struct WritePipeTransport;

impl PipeTransport {
    fn create(
        scheduler: &Bound<'_, Scheduler>,
        pipe: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        extra: Option<Bound<'_, PyDict>>,
        writes: bool,
    ) -> PyResult<PipeTransport> {
        let py = scheduler.py();
        let fd: RawFd = pipe.call_method0(name!("fileno"))?.extract()?;
        let kind = match scheduler.get().call(Call::FileType { fd })? {
            error if error < 0 => return Err(os_error(error)),
            kind => kind as u32,
        };
        if !matches!(kind, libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR) {
            return Err(py_error::<PyValueError>(if writes {
                "Pipe transport is only for pipes, sockets and character devices"
            } else {
                "Pipe transport is for pipes/sockets only."
            }));
        }
        scheduler.get().call(Call::SetNonBlocking { fd })?;
        let extra = extra.map_or_else(|| dict(py), Ok)?;
        extra.set_item(name!("pipe"), &pipe)?;
        let mut life = Life::new(protocol, Some(extra));
        life.fd = fd;
        life.file = Some(pipe.unbind());
        Ok(PipeTransport {
            scheduler: scheduler.clone().unbind(),
            context: current_context(py)?,
            writes,
            tells_of_peer: kind != libc::S_IFCHR,
            state: LoopCell::new(State {
                life,
                polling: InFlight::Nothing,
                paused: false,
                out: Outbox::default(),
                room: InFlight::Nothing,
            }),
        })
    }

    /// An error of the fd, which ends the transport. EIO is not reported loudly, as with asyncio: a terminal that hangs up says it.
    fn failed(this: &Bound<'_, Self>, result: i32) -> PyResult<()> {
        let error = os_error(result);
        if this.get().writes {
            return Self::fatal(this, error, "Fatal write error on pipe transport");
        }
        let message = "Fatal read error on pipe transport";
        if result == -libc::EIO {
            return Self::fatal(this, error, message);
        }
        let told = Self::protocol_failed(this, error.clone_ref(this.py()), message);
        Self::lose(this, Some(error)).and(told)
    }

    /// A poll is over. Also when the protocol stops the loop: the next run goes on from here.
    fn settle_after(this: &Bound<'_, Self>, outcome: PyResult<()>) -> PyResult<()> {
        let phase = this.get().state.get()?.life.phase;
        let settled = match phase {
            Phase::Open => Self::poll(this),
            Phase::Closing | Phase::Lost => Self::finish_if_idle(this),
            Phase::New | Phase::Closed => Ok(()),
        };
        one_after_other(this.py(), outcome, settled)
    }

    /// The last reader is gone.
    fn peer_is_gone(this: &Bound<'_, Self>) -> PyResult<()> {
        let unsent = !this.get().state.get()?.out.is_empty();
        Self::lose(this, unsent.then(|| PyBrokenPipeError::new_err(())))
    }

    /// Ends the transport once everything queued is written.
    fn begin_close(this: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = this.get().scheduler.get().claim()?;
        {
            let mut state = this.get().state.get()?;
            if state.life.phase >= Phase::Closing {
                return Ok(());
            }
            state.life.phase = Phase::Closing;
        }
        Self::stop_and_finish(this)
    }

    /// Once nothing is left to write: stops the ops in flight, and finishes after them, or soon if there are none.
    fn stop_and_finish(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut state = this.get().state.get()?;
            if state.life.phase < Phase::Closing || !state.out.is_empty() {
                return Ok(());
            }
            state.stop(&mut *this.get().scheduler.get().io.get()?);
            if !state.is_idle() {
                return Ok(());
            }
        }
        Self::soon(this, name!("_finish"))
    }

    fn finish_if_idle(this: &Bound<'_, Self>) -> PyResult<()> {
        let idle = {
            let state = this.get().state.get()?;
            state.is_idle() && state.out.is_empty()
        };
        if idle { Self::finish(this) } else { Ok(()) }
    }
}

impl Transport for PipeTransport {
    type State = State;

    fn scheduler(&self) -> &Py<Scheduler> {
        &self.scheduler
    }

    fn context(&self) -> &Py<PyAny> {
        &self.context
    }

    fn state(&self) -> &LoopCell<State> {
        &self.state
    }

    /// Ends the transport now; what the pipe does not take at once is dropped.
    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let reason = error.map(|error| error.into_value(this.py()));
        {
            let mut io = this.get().scheduler.get().io.get()?;
            let state = &mut *this.get().state.get()?;
            if state.life.phase >= Phase::Lost {
                return Ok(());
            }
            state.life.phase = Phase::Lost;
            state.life.error = reason;
            let fd = state.life.fd;
            state
                .out
                .flush(this.py(), &mut *io.driver, |out, py| out.write_op(py, fd));
            state.out.clear();
        }
        Self::stop_and_finish(this)
    }
}

#[pymethods]
impl PipeTransport {
    /// Calls `connection_made`, begins to read (or to watch the reader), and tells `waiter`.
    #[pyo3(name = "_start", signature = (waiter = None))]
    fn start(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let outcome = Self::open(slf);
        Self::poll(slf)?;
        wake(waiter)?;
        outcome
    }

    /// Calls `connection_lost`, closes the pipe and lets go of everything.
    #[pyo3(name = "_finish")]
    fn finish(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (fd, error, protocol, pipe) = {
            let mut state = this.state.get()?;
            let life = &mut state.life;
            if !matches!(life.phase, Phase::Closing | Phase::Lost) {
                return Ok(());
            }
            life.phase = Phase::Closed;
            (life.fd, life.error.take(), life.protocol.take(), life.file.take())
        };
        let outcome = Self::tell_lost(slf, protocol, error);
        // No op uses the fd any more; the pipe object closes it.
        this.scheduler.get().io.get()?.driver.forget(fd);
        if let Some(pipe) = pipe {
            let closed = pipe.into_bound(py).call_method0(name!("close"));
            Self::called(slf, closed, "pipe.close")?;
        }
        outcome
    }

    #[pyo3(signature = (name, default = None))]
    fn get_extra_info<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let extra = self
            .state
            .get()?
            .life
            .extra
            .as_ref()
            .map(|extra| extra.clone_ref(py));
        let value = extra
            .map(|extra| extra.bind(py).get_item(Text(name)))
            .transpose()?;
        Ok(value.flatten().or(default))
    }

    fn set_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        self.replace_protocol(protocol)
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.protocol(py)
    }

    fn is_closing(&self) -> PyResult<bool> {
        self.is_ending()
    }

    /// Ends the transport once everything queued is written.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("close"))? else {
            return Ok(());
        };
        Self::begin_close(slf)
    }

    /// The pipe object, until it is closed. Programs use this name, which is asyncio's.
    #[getter(_pipe)]
    fn pipe(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state.get()?;
        Ok(state.life.file.as_ref().map(|pipe| pipe.clone_ref(py)))
    }

    #[setter(_pipe)]
    fn set_pipe(&self, pipe: Option<Py<PyAny>>) -> PyResult<()> {
        let old = std::mem::replace(&mut self.state.get()?.life.file, pipe);
        drop(old);
        Ok(())
    }

    /// What `isinstance` sees: asyncio's classes, from which a native class can't inherit.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let hooks = slf.get().scheduler.get().hooks()?;
        let class = if slf.get().writes {
            &hooks.write_pipe_class
        } else {
            &hooks.read_pipe_class
        };
        Ok(class.bind(slf.py()).clone())
    }

    fn __repr__(&self) -> PyResult<Text<String>> {
        let state = self.state.get()?;
        let phase = match state.life.phase {
            Phase::New | Phase::Open => "open",
            Phase::Closing | Phase::Lost => "closing",
            Phase::Closed => "closed",
        };
        let fd = state.life.fd;
        Ok(Text(if self.writes {
            format!("<WritePipeTransport {phase} fd={fd} bufsize={}>", state.out.len())
        } else {
            let reading = if state.paused { "paused" } else { "polling" };
            format!("<ReadPipeTransport {phase} fd={fd} {reading}>")
        }))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.context)?;
        if let Some(state) = self.state.look() {
            state.life.traverse(&visit)?;
        }
        Ok(())
    }
}

impl Drop for PipeTransport {
    /// A transport that never ended: the pipe must not stay open, and the program is told unless it had closed it.
    fn drop(&mut self) {
        let Ok(mut state) = self.state.get() else { return };
        let (phase, fd, pipe) = (state.life.phase, state.life.fd, state.life.file.take());
        drop(state);
        let Some(pipe) = pipe else { return };
        finalise(|py| {
            let warned = if phase < Phase::Closing {
                release::warn_unclosed(py, &format!("fd={fd}"))
            } else {
                Ok(())
            };
            let closed = pipe.call_method0(py, name!("close")).map(drop);
            one_after_other(py, warned, closed)
        });
    }
}
