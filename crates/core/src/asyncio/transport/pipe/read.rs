//! How a read pipe reads, and how both know of their peer's end.

use proact_driver::{Completion, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{PipeTransport, ReadPipeTransport};
use crate::asyncio::transport::base::Transport;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::{bytes_memory, shorten, uninit_bytes};
use crate::py::instance::instance;
use crate::py::make::name;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::{Completes, Target};

/// The most that one read takes, in bytes: what a pipe holds by default.
const READ: usize = 64 * 1024;

static POLLS: Completes<PipeTransport> =
    Completes::<PipeTransport>::new(|pipe, arrived| PipeTransport::polled(pipe, &arrived.completion))
        .that_owns(PipeTransport::owned);

impl PipeTransport {
    /// Waits for the fd, unless it does already or has no need to.
    pub(super) fn poll(this: &Bound<'_, Self>) -> PyResult<()> {
        let transport = this.get();
        let refused = {
            let mut state = transport.state.get()?;
            let wanted = if transport.writes {
                transport.tells_of_peer
            } else {
                !state.paused
            };
            if state.life.phase != Phase::Open || !state.polling.is_nothing() || !wanted {
                return Ok(());
            }
            let (fd, target) = (state.life.fd, Target::new(this.clone().unbind(), &POLLS));
            let mut io = transport.scheduler.get().io.get()?;
            if transport.writes {
                state.polling.poll(&mut io, fd, libc::POLLIN, target)
            } else {
                state.polling.watch(&mut io, fd, target)
            }
        };
        refused.map_or(Ok(()), |error| Self::failed(this, error))
    }

    /// There is something to read, or the last reader is gone.
    fn polled(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let transport = this.get();
        let (phase, wanted) = {
            let mut state = transport.state.get()?;
            let wanted = !state.paused && !state.polling.is_stopping();
            if completion.is_terminal() {
                state.polling.over();
            } else if state.paused {
                // Pausing costs nothing until something arrives: programs that pause often resume at once.
                state.polling.stop(&mut *transport.scheduler.get().io.get()?);
            }
            (state.life.phase, wanted)
        };
        let outcome = match completion.result {
            _ if phase >= Phase::Lost => Ok(()),
            result if result == -libc::ECANCELED => Ok(()),
            error if error < 0 => Self::failed(this, error),
            _ if transport.writes => Self::peer_is_gone(this),
            _ if wanted && phase == Phase::Open => Self::read(this),
            _ => Ok(()),
        };
        if completion.is_terminal() {
            Self::settle_after(this, outcome)
        } else {
            outcome
        }
    }

    /// One read, straight into the object that the protocol gets.
    fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let fd = this.get().state.get()?.life.fd;
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
                let told = Self::called(this, outcome, "eof_received");
                Self::lose(this, None).and(told)
            }
            error if error < 0 => Self::failed(this, error),
            count => {
                let data = shorten(bytes, count as usize)?;
                let outcome = callee.data_received(&data);
                Self::called(this, outcome, "data_received")
            }
        }
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
        Ok(state.life.phase < Phase::Closing && !state.paused)
    }

    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.as_super().get().scheduler.get().claim()?;
        let mut state = slf.as_super().get().state.get()?;
        state.paused |= state.life.phase < Phase::Closing;
        Ok(())
    }

    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.as_super().get().scheduler.get().claim()?;
        {
            let mut state = slf.as_super().get().state.get()?;
            if state.life.phase >= Phase::Closing || !state.paused {
                return Ok(());
            }
            state.paused = false;
        }
        PipeTransport::poll(slf.as_super())
    }
}
