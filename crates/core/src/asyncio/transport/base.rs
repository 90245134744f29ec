//! What the transports over an fd have in common: their life (`phase.rs`), what the protocol is told of it, and the objects
//! that a program may ask for. Each transport has a [`Life`] in its state, and is a [`Transport`].

use std::os::fd::RawFd;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyDict;

use super::flow::{Flow, HIGH_WATER};
use super::futile::futile_write;
use super::phase::Phase;
use super::protocol::Callee;
use super::report;
use crate::py::call::{Reason, method0, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::make::{Name, name};
use crate::reactor::scheduler::Scheduler;
use pyo3::PyClass;

pub(super) struct Life {
    /// -1 before the transport takes the fd over, and after it has given it up.
    pub fd: RawFd,
    pub phase: Phase,
    /// `None` once it was told of the end.
    pub protocol: Option<Py<PyAny>>,
    /// Why the transport ends.
    pub error: Reason,
    pub flow: Flow,
    /// Writes since the end has begun.
    pub futile: u32,
    /// What `get_extra_info` knows, if anything was put there.
    pub extra: Option<Py<PyDict>>,
    /// The Python object that has the fd too: a socket or a pipe.
    pub file: Option<Py<PyAny>>,
}

impl Life {
    pub fn new(protocol: Bound<'_, PyAny>, extra: Option<Bound<'_, PyDict>>) -> Life {
        Life {
            fd: -1,
            phase: Phase::New,
            protocol: Some(protocol.unbind()),
            error: None,
            flow: Flow::new(HIGH_WATER),
            futile: 0,
            extra: extra.map(Bound::unbind),
            file: None,
        }
    }

    /// The fd, which is no longer the transport's.
    pub fn take_fd(&mut self) -> RawFd {
        std::mem::replace(&mut self.fd, -1)
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.protocol)?;
        visit.call(&self.error)?;
        visit.call(&self.extra)?;
        visit.call(&self.file)
    }
}

/// The state of a transport over an fd.
pub(super) trait Living {
    fn life(&self) -> &Life;
    fn life_mut(&mut self) -> &mut Life;
    /// How much waits to be sent, in bytes.
    fn queued(&self) -> usize;
}

pub(super) trait Transport: PyClass<Frozen = True> + Sync {
    type State: Living;

    fn scheduler(&self) -> &Py<Scheduler>;
    /// Where the protocol's methods run.
    fn context(&self) -> &Py<PyAny>;
    fn state(&self) -> &LoopCell<Self::State>;

    /// Ends the transport now; what is queued is dropped.
    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()>;

    fn protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state().get()?;
        let protocol = &state.life().protocol;
        Ok(protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    fn replace_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let old = self.state().get()?.life_mut().protocol.replace(protocol.unbind());
        // Dropped after the cell is free: a destructor may call the transport.
        drop(old);
        Ok(())
    }

    /// The protocol and the context to call it in; `None` once it was told of the end.
    fn callee<'py>(&self, py: Python<'py>) -> PyResult<Option<Callee<'py>>> {
        let protocol = self.protocol(py)?;
        Ok(protocol.map(|protocol| self.calls(protocol.into_bound(py))))
    }

    fn calls<'py>(&self, protocol: Bound<'py, PyAny>) -> Callee<'py> {
        let context = self.context().clone_ref(protocol.py());
        Callee { protocol, context }
    }

    /// The fd, for a message.
    fn owned(this: &Bound<'_, Self>) -> Option<RawFd> {
        this.get().state().get().ok().map(|state| state.life().fd)
    }

    /// Schedules a method of this transport for the next turn.
    fn soon(this: &Bound<'_, Self>, method: &'static Name) -> PyResult<()> {
        // Not in the transport's own context, which those methods enter themselves.
        this.get().scheduler().get().method_soon(this.as_any(), method)
    }

    /// Reports what a method of the protocol raised. Nothing else changes.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` pass through.
    fn protocol_failed(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        if stops_the_loop(this.py(), &error) {
            return Err(error);
        }
        report::protocol_failed(this.get().scheduler(), this.as_any(), &error, message)
    }

    /// Reports what a method of the protocol raised, if it did.
    fn called<T>(this: &Bound<'_, Self>, outcome: PyResult<T>, method: &str) -> PyResult<()> {
        let message = || format!("Exception in callback protocol.{method}");
        let outcome = outcome.map(drop);
        outcome.or_else(|error| Self::protocol_failed(this, error, &message()))
    }

    /// An exception of the protocol, or an error of the fd, that ends the transport: reports it, then loses the transport.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` pass through.
    fn fatal(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        if stops_the_loop(this.py(), &error) {
            return Err(error);
        }
        let told = report::transport_failed(this.get().scheduler(), this.as_any(), &error, message);
        // Whatever an exception handler raises.
        Self::lose(this, Some(error))?;
        told
    }

    /// The transport opens, and `connection_made` is called.
    fn open(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut state = this.get().state().get()?;
            let phase = &mut state.life_mut().phase;
            if *phase == Phase::New {
                *phase = Phase::Open;
            }
        }
        let Some(callee) = this.get().callee(this.py())? else {
            return Ok(());
        };
        adopt(this.get().scheduler().get(), &callee.protocol)?;
        let made = callee.call1(name!("connection_made"), this.as_any());
        Self::called(this, made, "connection_made")
    }

    /// Calls `connection_lost`, the last that the protocol hears. It was taken out of the state.
    fn tell_lost(this: &Bound<'_, Self>, protocol: Option<Py<PyAny>>, error: Reason) -> PyResult<()> {
        let py = this.py();
        let Some(protocol) = protocol else { return Ok(()) };
        let reason = error.into_pyobject(py)?;
        let callee = this.get().calls(protocol.into_bound(py));
        let lost = callee.call1(name!("connection_lost"), &reason);
        Self::called(this, lost, "connection_lost")
    }

    /// Has the protocol pause, if too much is queued. The caller is the program, possibly inside the transport's context
    /// already: the protocol is called in whatever context it has.
    fn maybe_pause_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let pauses = {
            let mut state = this.get().state().get()?;
            let size = state.queued();
            state.life_mut().flow.pauses(size)
        };
        if !pauses {
            return Ok(());
        }
        let Some(protocol) = this.get().protocol(this.py())? else {
            return Ok(());
        };
        let told = method0(protocol.bind(this.py()), name!("pause_writing")).map(drop);
        told.or_else(|error| Self::protocol_failed(this, error, "protocol.pause_writing() failed"))
    }

    /// Has the protocol go on, if it was paused and little enough is queued.
    fn maybe_resume_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let resumes = {
            let mut state = this.get().state().get()?;
            let size = state.queued();
            state.life_mut().flow.resumes(size)
        };
        if !resumes {
            return Ok(());
        }
        let Some(callee) = this.get().callee(this.py())? else {
            return Ok(());
        };
        let told = callee.call0(name!("resume_writing")).map(drop);
        told.or_else(|error| Self::protocol_failed(this, error, "protocol.resume_writing() failed"))
    }

    fn set_limits(this: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        this.get()
            .state()
            .get()?
            .life_mut()
            .flow
            .set_limits(high, low, HIGH_WATER)?;
        Self::maybe_pause_protocol(this)
    }

    fn is_ending(&self) -> PyResult<bool> {
        Ok(self.state().get()?.life().phase >= Phase::Closing)
    }

    /// A write after the end has begun.
    fn warn_of_futile_write(&self, py: Python<'_>) -> PyResult<()> {
        let futile = {
            let mut state = self.state().get()?;
            let life = state.life_mut();
            life.futile += 1;
            life.futile
        };
        futile_write(py, futile, "socket.send() raised exception.")
    }
}

/// Gives the stream of a protocol that opens its native methods, if it is asyncio's own (`asyncio/streams/`).
pub(super) fn adopt(scheduler: &Scheduler, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
    let hooks = scheduler.hooks()?;
    if protocol.get_type().is(&hooks.stream_protocol) {
        hooks.adopt_stream.bind(protocol.py()).call1((protocol,))?;
    }
    Ok(())
}

/// Wakes the task that waits for the transport to begin.
pub(super) fn wake(waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    let Some(waiter) = waiter else { return Ok(()) };
    if waiter.call_method0(name!("done"))?.is_truthy()? {
        return Ok(());
    }
    waiter
        .call_method1(name!("set_result"), (waiter.py().None(),))
        .map(drop)
}
