//! How a datagram transport receives: told when the socket is readable, it takes what is there.
//!
//! A lone datagram costs one call. The transport looks for more of them now and then, and goes on as long as it finds some: up to
//! `BURST` in one turn, so that a flood does not keep other connections waiting.

use proact_driver::{Completion, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::inbox::Inbox;
use super::{DatagramTransport, Known};
use crate::asyncio::transport::base::Transport;
use crate::asyncio::transport::phase::Phase;
use crate::py::address::Address;
use crate::py::call::one_after_other;
use crate::py::errno::os_error;
use crate::py::make::name;
use crate::py::method::Method;
use crate::reactor::io::Io;
use crate::reactor::ready::Ready;
use crate::reactor::target::{Completes, Target};

/// Datagrams taken in one turn.
const BURST: usize = 32;
/// After a lone datagram, wake-ups that take only one.
const QUIET: u8 = 7;

static IS_READABLE: Completes<DatagramTransport> =
    Completes::<DatagramTransport>::new(|transport, arrived| {
        DatagramTransport::readable(transport, &arrived.completion)
    })
    .that_owns(DatagramTransport::owned);

impl DatagramTransport {
    /// Watches the socket, unless that is done already or not wanted.
    pub(super) fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let refused = {
            let mut state = this.get().state.get()?;
            if state.life.phase != Phase::Open || state.paused || !state.reading.is_nothing() {
                return Ok(());
            }
            let (fd, target) = (state.life.fd, Target::new(this.clone().unbind(), &IS_READABLE));
            let mut io = this.get().scheduler.get().io.get()?;
            state.reading.watch(&mut io, fd, target)
        };
        refused.map_or(Ok(()), |error| Self::read_failed(this, error))
    }

    /// The socket is readable, or has an error to tell.
    pub fn readable(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let wanted = {
            let mut state = this.get().state.get()?;
            let stopping = state.reading.is_stopping();
            if completion.is_terminal() {
                state.reading.over();
            } else if state.paused {
                // Pausing costs nothing until something arrives.
                state.reading.stop(&mut *this.get().scheduler.get().io.get()?);
            }
            state.life.phase == Phase::Open && !state.paused && !stopping
        };
        let outcome = match completion.result {
            0.. if wanted => {
                let take = Method::new(this.clone().unbind(), |this| Self::take(this).map(|()| None));
                this.get().scheduler.get().push(Ready::Method(take));
                Ok(())
            }
            error if wanted && error < 0 => Self::read_failed(this, error),
            _ => Ok(()),
        };
        if !completion.is_terminal() {
            return outcome;
        }
        let phase = this.get().state.get()?.life.phase;
        let settled = match phase {
            Phase::Lost => Self::finish(this),
            _ => Self::read(this),
        };
        one_after_other(this.py(), outcome, settled)
    }

    /// Receives what is there.
    pub fn take(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        let limit = {
            let mut state = transport.state.get()?;
            let lone = state.quiet > 0;
            state.quiet = state.quiet.saturating_sub(1);
            if lone { 1 } else { BURST }
        };
        for taken in 0..limit {
            let fd = {
                let state = transport.state.get()?;
                if state.life.phase != Phase::Open || state.paused {
                    return Ok(());
                }
                state.life.fd
            };
            let received = {
                let Io { shared, driver, .. } = &mut *transport.scheduler.get().io.get()?;
                shared.get::<Inbox>().receive(py, &mut **driver, fd)?
            };
            match received {
                Ok((data, from)) => Self::deliver(this, &data, from)?,
                Err(syscalls::AGAIN) => {
                    transport.state.get()?.quiet = if taken > 1 { 0 } else { QUIET };
                    return Ok(());
                }
                Err(error) => Self::read_failed(this, error)?,
            }
        }
        Ok(())
    }

    fn deliver(this: &Bound<'_, Self>, data: &Bound<'_, PyBytes>, from: Address) -> PyResult<()> {
        let py = this.py();
        let shown = {
            let state = this.get().state.get()?;
            let known = state.sender.as_ref().filter(|known| known.address == from);
            known.map(|known| known.shown.clone_ref(py))
        };
        let shown = match shown {
            Some(shown) => shown,
            None => {
                let shown = from.to_python(py)?.unbind();
                let known = Known {
                    address: from,
                    shown: shown.clone_ref(py),
                };
                let old = this.get().state.get()?.sender.replace(known);
                drop(old);
                shown
            }
        };
        let Some(callee) = this.get().callee(py)? else {
            return Ok(());
        };
        let outcome = callee.datagram_received(data, shown.bind(py));
        Self::called(this, outcome, "datagram_received")
    }

    /// An error of the socket: the protocol is told. The transport ends only if the error says that the fd is no socket any more.
    fn read_failed(this: &Bound<'_, Self>, error: i32) -> PyResult<()> {
        match -error {
            libc::ECANCELED => Ok(()),
            libc::EBADF | libc::ENOTSOCK | libc::ERANGE => {
                Self::fatal(this, os_error(error), "Fatal read error on datagram transport")
            }
            _ => Self::error_received(this, error),
        }
    }

    pub(super) fn error_received(this: &Bound<'_, Self>, error: i32) -> PyResult<()> {
        let py = this.py();
        let Some(callee) = this.get().callee(py)? else {
            return Ok(());
        };
        let error = os_error(error).into_value(py);
        let outcome = callee.call1(name!("error_received"), error.bind(py).as_any());
        Self::called(this, outcome, "error_received")
    }
}

#[pymethods]
impl DatagramTransport {
    fn is_reading(&self) -> PyResult<bool> {
        let state = self.state.get()?;
        Ok(state.life.phase < Phase::Closing && !state.paused)
    }

    fn pause_reading(&self) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        let mut state = self.state.get()?;
        state.paused |= state.life.phase < Phase::Closing;
        Ok(())
    }

    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        slf.get().state.get()?.paused = false;
        Self::read(slf)
    }
}
