//! Pipes, FIFOs, terminals, and sockets used as such: one transport that reads, one that writes.
//!
//! The engine says when the fd is ready and the call is made here. The pipe is in non-blocking mode, where a read of the
//! ring's own gains nothing (the kernel answers EAGAIN, and a poll must follow), and a wait ends at once when it is
//! cancelled, whatever the fd is. The pipe object is the program's: it is closed by its own `close`. Writing: `pipe/write.rs`.

mod write;

use std::os::fd::RawFd;

use proact_driver::{Call, Completion, Op, Token, ops, syscalls};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBrokenPipeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::flow::{Flow, HIGH_WATER};
use super::outbox::Outbox;
use super::protocol::Callee;
use crate::asyncio::transport::phase::Phase;
use crate::asyncio::transport::release;
use crate::asyncio::transport::report;
use crate::py::bytes::{bytes_memory, shorten, uninit_bytes};
use crate::py::call::{Reason, current_context, one_after_other, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::ending::finalise;
use crate::py::errno::os_error;
use crate::py::instance::instance;
use crate::py::make::{Text, dict, name, py_error};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::{Completes, Target};

/// The most that one read takes, in bytes: what a pipe holds by default.
const READ: usize = 64 * 1024;

pub(super) struct State {
    fd: RawFd,
    phase: Phase,
    protocol: Option<Py<PyAny>>,
    pipe: Option<Py<PyAny>>,
    /// Waits for something to read; when writing, for the last reader to go.
    polling: Option<Token>,
    stopping: bool,
    paused: bool,
    out: Outbox,
    /// Waits for room.
    writing: Option<Token>,
    flow: Flow,
    /// Writes since the pipe was lost.
    futile: u32,
    error: Reason,
}

/// What the two have in common. With a `__dict__`, for those who hang something on a transport, or replace a method.
#[pyclass(frozen, subclass, dict, weakref, module = "proact._core")]
pub struct PipeTransport {
    scheduler: Py<Scheduler>,
    context: Py<PyAny>,
    extra: Py<PyDict>,
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

static POLLS: Completes<PipeTransport> =
    Completes::<PipeTransport>::new(|pipe, arrived| PipeTransport::ready(pipe, &arrived.completion))
        .that_owns(|pipe| pipe.get().state.get().ok().map(|state| state.fd));

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
        Ok(PipeTransport {
            scheduler: scheduler.clone().unbind(),
            context: current_context(py)?,
            extra: extra.unbind(),
            writes,
            tells_of_peer: kind != libc::S_IFCHR,
            state: LoopCell::new(State {
                fd,
                phase: Phase::New,
                protocol: Some(protocol.unbind()),
                pipe: Some(pipe.unbind()),
                polling: None,
                stopping: false,
                paused: false,
                out: Outbox::default(),
                writing: None,
                flow: Flow::new(HIGH_WATER),
                futile: 0,
                error: None,
            }),
        })
    }

    fn callee<'py>(&self, py: Python<'py>) -> PyResult<Option<Callee<'py>>> {
        let state = self.state.get()?;
        Ok(state.protocol.as_ref().map(|protocol| Callee {
            protocol: protocol.bind(py).clone(),
            context: self.context.clone_ref(py),
        }))
    }

    /// Reports what a protocol's method raised, and goes on.
    fn report(this: &Bound<'_, Self>, outcome: PyResult<Bound<'_, PyAny>>, method: &str) -> PyResult<()> {
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => Self::failed(
                this,
                &error,
                &format!("Exception in callback protocol.{method}"),
                false,
            ),
        }
    }

    fn failed(this: &Bound<'_, Self>, error: &PyErr, message: &str, quiet: bool) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, error) {
            return Err(error.clone_ref(py));
        }
        let tell = if quiet {
            report::transport_failed
        } else {
            report::protocol_failed
        };
        tell(&this.get().scheduler, this.as_any(), error, message)
    }

    /// An error of the fd's, which ends the transport. A terminal that hangs up says EIO: no news, as asyncio has it.
    fn fatal(this: &Bound<'_, Self>, result: i32) -> PyResult<()> {
        let writes = this.get().writes;
        let what = if writes { "write" } else { "read" };
        let error = os_error(result);
        let message = format!("Fatal {what} error on pipe transport");
        let told = Self::failed(this, &error, &message, writes || result == -libc::EIO);
        Self::lose(this, Some(error)).and(told)
    }

    /// Waits for the fd, unless it does already or has no need to.
    fn poll(this: &Bound<'_, Self>) -> PyResult<()> {
        let transport = this.get();
        let refused = {
            let mut state = transport.state.get()?;
            let wanted = if transport.writes {
                transport.tells_of_peer
            } else {
                !state.paused
            };
            if state.phase != Phase::Open || state.polling.is_some() || !wanted {
                return Ok(());
            }
            let (fd, events) = (state.fd, libc::POLLIN as u32);
            let op = if transport.writes {
                Op::Poll(ops::Poll { fd, events })
            } else {
                Op::PollMulti(ops::PollMulti { fd, events })
            };
            let mut io = transport.scheduler.get().io.get()?;
            // SAFETY: a poll points at no memory.
            match unsafe { io.submit(op, Target::new(this.clone().unbind(), &POLLS)) } {
                Sent::Pending(token) => {
                    state.polling = Some(token);
                    state.stopping = false;
                    return Ok(());
                }
                Sent::Ready(result) => result,
            }
        };
        Self::fatal(this, refused)
    }

    /// A completion of one of the polls.
    pub fn ready(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let transport = this.get();
        let (room, phase, wanted) = {
            let mut state = transport.state.get()?;
            let room = state.writing == Some(completion.token);
            if completion.is_terminal() {
                *(if room {
                    &mut state.writing
                } else {
                    &mut state.polling
                }) = None;
            } else if state.paused {
                // Pausing costs nothing until something arrives: programs that pause often resume at once.
                state.stop(&mut *transport.scheduler.get().io.get()?);
            }
            (room, state.phase, !state.paused && !state.stopping)
        };
        let outcome = match completion.result {
            _ if phase >= Phase::Lost => Ok(()),
            result if result == -libc::ECANCELED => Ok(()),
            error if error < 0 => Self::fatal(this, error),
            _ if room => Self::write_now(this),
            _ if transport.writes => Self::peer_is_gone(this),
            _ if wanted && phase == Phase::Open => Self::read(this),
            _ => Ok(()),
        };
        if !completion.is_terminal() {
            return outcome;
        }
        // Also when the protocol stops the loop: the next run goes on from here.
        let phase = transport.state.get()?.phase;
        let settled = match phase {
            Phase::Open => Self::poll(this),
            Phase::Closing | Phase::Lost => Self::finish_if_idle(this),
            Phase::New | Phase::Closed => Ok(()),
        };
        one_after_other(this.py(), outcome, settled)
    }

    /// One read, straight into the object that the protocol gets.
    fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let fd = this.get().state.get()?.fd;
        let Some(callee) = this.get().callee(py)? else {
            return Ok(());
        };
        let bytes = uninit_bytes(py, READ)?;
        let op = Op::Read(ops::Read {
            fd,
            buf: bytes_memory(&bytes),
            len: READ,
            offset: -1,
        });
        // SAFETY: a fresh object of just this length that nobody else has seen.
        match unsafe { this.get().scheduler.get().attempt(&op) }? {
            syscalls::AGAIN => Ok(()),
            0 => {
                let outcome = callee.call0(name!("eof_received"));
                let told = Self::report(this, outcome, "eof_received");
                Self::lose(this, None).and(told)
            }
            error if error < 0 => Self::fatal(this, error),
            count => {
                let data = shorten(bytes, count as usize)?;
                let outcome = callee.call1(name!("data_received"), data.as_any());
                Self::report(this, outcome, "data_received")
            }
        }
    }

    /// Nobody can read any more what is written.
    fn peer_is_gone(this: &Bound<'_, Self>) -> PyResult<()> {
        let unsent = !this.get().state.get()?.out.is_empty();
        Self::lose(this, unsent.then(|| PyBrokenPipeError::new_err(())))
    }

    /// Ends the transport once everything queued is written.
    fn begin_close(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            this.get().scheduler.get().check_free()?;
            let mut state = this.get().state.get()?;
            if state.phase >= Phase::Closing {
                return Ok(());
            }
            state.phase = Phase::Closing;
        }
        Self::stop_and_finish(this)
    }

    /// Ends the transport now; what the pipe does not take at once is dropped.
    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let reason = error.map(|error| error.into_value(this.py()));
        {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            if state.phase >= Phase::Lost {
                return Ok(());
            }
            state.phase = Phase::Lost;
            state.error = reason;
            let fd = state.fd;
            if let Some(op) = state
                .out
                .write_op(this.py(), fd)
                .filter(|_| !state.out.is_empty())
            {
                // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
                unsafe { io.driver.attempt(&op) };
            }
            state.out.clear();
        }
        Self::stop_and_finish(this)
    }

    /// With nothing left to write, ends what still waits; then, or at once, the transport is over.
    fn stop_and_finish(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut state = this.get().state.get()?;
            if state.phase < Phase::Closing || !state.out.is_empty() {
                return Ok(());
            }
            state.stop(&mut *this.get().scheduler.get().io.get()?);
            if state.polling.is_some() || state.writing.is_some() {
                return Ok(());
            }
        }
        this.get()
            .scheduler
            .get()
            .method_soon(this.as_any(), name!("_finish"))
    }

    fn finish_if_idle(this: &Bound<'_, Self>) -> PyResult<()> {
        let idle = {
            let state = this.get().state.get()?;
            state.polling.is_none() && state.writing.is_none() && state.out.is_empty()
        };
        if idle { Self::finish(this) } else { Ok(()) }
    }
}

impl State {
    /// Asks what is in flight to end.
    fn stop(&mut self, io: &mut crate::reactor::io::Io) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        for token in [self.polling, self.writing].into_iter().flatten() {
            io.cancel(token);
        }
    }
}

#[pymethods]
impl PipeTransport {
    /// Calls `connection_made`, begins to read (or to watch the reader), and tells `waiter`.
    #[pyo3(name = "_start", signature = (waiter = None))]
    fn start(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        {
            let mut state = slf.get().state.get()?;
            if state.phase == Phase::New {
                state.phase = Phase::Open;
            }
        }
        let outcome = match slf.get().callee(py)? {
            Some(callee) => {
                let made = callee.call1(name!("connection_made"), slf.as_any());
                Self::report(slf, made, "connection_made")
            }
            None => Ok(()),
        };
        Self::poll(slf)?;
        if let Some(waiter) = waiter
            && !waiter.call_method0(name!("done"))?.is_truthy()?
        {
            waiter.call_method1(name!("set_result"), (py.None(),))?;
        }
        outcome
    }

    /// Calls `connection_lost`, closes the pipe and lets go of everything.
    #[pyo3(name = "_finish")]
    fn finish(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let callee = this.callee(py)?;
        let (fd, error, pipe) = {
            let mut state = this.state.get()?;
            if !matches!(state.phase, Phase::Closing | Phase::Lost) {
                return Ok(());
            }
            state.phase = Phase::Closed;
            state.protocol = None;
            (state.fd, state.error.take(), state.pipe.take())
        };
        let mut outcome = Ok(());
        if let Some(callee) = callee {
            let reason = error.into_pyobject(py)?;
            let lost = callee.call1(name!("connection_lost"), &reason);
            outcome = Self::report(slf, lost, "connection_lost");
        }
        // No op uses the fd any more; the pipe object closes it.
        this.scheduler.get().io.get()?.driver.forget(fd);
        if let Some(pipe) = pipe {
            let closed = pipe.into_bound(py).call_method0(name!("close"));
            Self::report(slf, closed, "pipe.close")?;
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
        Ok(self.extra.bind(py).get_item(Text(name))?.or(default))
    }

    fn set_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let old = self.state.get()?.protocol.replace(protocol.unbind());
        drop(old);
        Ok(())
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state.get()?;
        Ok(state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    fn is_closing(&self) -> PyResult<bool> {
        Ok(self.state.get()?.phase >= Phase::Closing)
    }

    /// Ends the transport once everything queued is written.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().scheduler.get().defers(slf.as_any(), name!("close"))? {
            return Ok(());
        }
        Self::begin_close(slf)
    }

    /// The pipe object, until it is closed: asyncio's own name for it, which its users have come to know.
    #[getter(_pipe)]
    fn pipe(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state.get()?;
        Ok(state.pipe.as_ref().map(|pipe| pipe.clone_ref(py)))
    }

    #[setter(_pipe)]
    fn set_pipe(&self, pipe: Option<Py<PyAny>>) -> PyResult<()> {
        let old = std::mem::replace(&mut self.state.get()?.pipe, pipe);
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
        let phase = match state.phase {
            Phase::New | Phase::Open => "open",
            Phase::Closing | Phase::Lost => "closing",
            Phase::Closed => "closed",
        };
        let fd = state.fd;
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
        visit.call(&self.extra)?;
        if let Some(state) = self.state.look() {
            visit.call(&state.protocol)?;
            visit.call(&state.pipe)?;
            visit.call(&state.error)?;
        }
        Ok(())
    }
}

#[pymethods]
impl ReadPipeTransport {
    #[new]
    #[pyo3(signature = (scheduler, pipe, protocol, extra = None))]
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        pipe: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<ReadPipeTransport>> {
        let base = PipeTransport::create(scheduler, pipe, protocol, extra, false)?;
        let whole = PyClassInitializer::from(base).add_subclass(ReadPipeTransport);
        instance(scheduler.py(), whole).map(Bound::unbind)
    }

    fn is_reading(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let state = slf.as_super().get().state.get()?;
        Ok(state.phase < Phase::Closing && !state.paused)
    }

    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut state = slf.as_super().get().state.get()?;
        state.paused |= state.phase < Phase::Closing;
        Ok(())
    }

    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.as_super().get().scheduler.get().check_free()?;
        {
            let mut state = slf.as_super().get().state.get()?;
            if state.phase >= Phase::Closing || !state.paused {
                return Ok(());
            }
            state.paused = false;
        }
        PipeTransport::poll(slf.as_super())
    }
}

impl Drop for PipeTransport {
    /// A transport that never ended: the pipe must not stay open, and the program is told unless it had closed it.
    fn drop(&mut self) {
        let Ok(mut state) = self.state.get() else { return };
        let (phase, fd, pipe) = (state.phase, state.fd, state.pipe.take());
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
