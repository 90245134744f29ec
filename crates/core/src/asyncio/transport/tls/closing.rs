//! How a TLS transport ends: what was written goes out, close_notify is exchanged, and the transport below is closed;
//! `connection_lost` comes once that is.

use pyo3::prelude::*;

use super::{Below, Phase, TLSTransport, Told, session};
use crate::py::call::one_after_other;
use crate::py::make::{name, py_error};

impl TLSTransport {
    pub(super) fn begin_close(this: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = this.get().scheduler.get().claim()?;
        let phase = {
            let mut state = this.get().state.get()?;
            let phase = state.phase;
            state.closing = true;
            match phase {
                Phase::New => state.phase = Phase::Closed,
                Phase::Wrapped => state.phase = Phase::Flushing,
                Phase::Handshake | Phase::Flushing | Phase::Shutdown | Phase::Closed => {}
            }
            phase
        };
        match phase {
            Phase::Handshake => Self::lose(this, None),
            Phase::Wrapped => {
                Self::limit_shutdown(this)?;
                Self::flush(this)
            }
            _ => Ok(()),
        }
    }

    /// Has the connection end after the shutdown's time limit, which runs until `connection_lost`.
    fn limit_shutdown(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            let state = this.get().state.get()?;
            if state.timer.is_some() || state.lower.is_none() {
                return Ok(());
            }
        }
        let timer = Self::later(this, &this.get().timeouts.1, name!("_shutdown_timed_out"))?;
        this.get().state.get()?.timer = Some(timer);
        Ok(())
    }

    /// Reads and writes what is left, then sends close_notify.
    pub(super) fn flush(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::read(this)?;
        if this.get().phase()? == Phase::Flushing
            && let Err(error) = Self::send_backlog(this)
        {
            return Self::fatal(this, error, "Fatal error on SSL protocol");
        }
        {
            let mut state = this.get().state.get()?;
            if state.phase != Phase::Flushing {
                // The protocol has closed or lost the transport meanwhile.
                return Ok(());
            }
            state.phase = Phase::Shutdown;
        }
        Self::shut_down(this)
    }

    pub(super) fn shut_down(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        if !this.get().state.get()?.ended {
            match this.get().session.shutdown(py) {
                Ok(()) => {}
                Err(error) if session::wants_more(py, &error)? => return Self::drain(this),
                Err(error) if session::is_ssl_error(py, &error)? => {
                    this.get().cancel_timer(py)?;
                    return Self::fatal(this, error, "Fatal error on transport");
                }
                Err(error) => return Err(error),
            }
        }
        // The protocol may stop the loop, and the connection is closed all the same.
        let told = one_after_other(py, Self::drain(this), Self::deliver_end(this));
        // A peer that does not read keeps the transport below from closing, also after it has ended its own side.
        let told = one_after_other(py, told, Self::limit_shutdown(this));
        one_after_other(py, told, Self::close_lower(this))
    }

    /// Closes the transport below, once it has taken all that is encrypted: it takes nothing more after that.
    pub(super) fn close_lower(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let waits = this.get().session.undrained(py)? > 0;
        let lower = {
            let mut state = this.get().state.get()?;
            if waits && state.below != Below::Takes {
                state.below = Below::FullThenClosed;
                return Ok(());
            }
            state.lower.as_ref().map(|lower| lower.clone_ref(py))
        };
        let Some(lower) = lower else { return Ok(()) };
        let close = lower.bind(py).getattr(name!("close"))?;
        let scheduler = this.get().scheduler.bind(py);
        scheduler.call_method1(name!("call_soon"), (close,)).map(drop)
    }

    /// Ends the connection now.
    fn lose(this: &Bound<'_, Self>, error: Option<&PyErr>) -> PyResult<()> {
        let _claim = this.get().scheduler.get().claim()?;
        this.get().state.get()?.phase = Phase::Closed;
        match this.get().lower(this.py())? {
            Some(lower) => lower.force_close(this.py(), error),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl TLSTransport {
    fn is_closing(&self) -> PyResult<bool> {
        Ok(self.state.get()?.is_closing())
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("close"))? else {
            return Ok(());
        };
        Self::begin_close(slf)
    }

    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("abort"))? else {
            return Ok(());
        };
        Self::lose(slf, None)
    }

    #[pyo3(name = "_force_close", signature = (exc))]
    fn force_close(slf: &Bound<'_, Self>, exc: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        Self::lose(slf, exc.map(PyErr::from_value).as_ref())
    }

    /// Whether the transport below is gone.
    #[getter(_is_lost)]
    fn is_lost(&self) -> PyResult<bool> {
        Ok(self.state.get()?.lower.is_none())
    }

    #[pyo3(name = "_shutdown_timed_out")]
    fn shutdown_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        if !matches!(slf.get().phase()?, Phase::Flushing | Phase::Shutdown) {
            return Ok(());
        }
        let Some(lower) = slf.get().lower(slf.py())? else {
            return Ok(());
        };
        let error = py_error::<pyo3::exceptions::PyTimeoutError>("SSL shutdown timed out");
        lower.force_close(slf.py(), Some(&error))
    }

    /// The transport below is gone.
    #[pyo3(signature = (exc))]
    fn connection_lost(slf: &Bound<'_, Self>, exc: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (held, protocol, tell) = {
            let mut state = this.state.get()?;
            let tell = state.phase != Phase::Handshake && matches!(state.told, Told::Made | Told::Ended);
            if tell {
                state.told = Told::Lost;
            }
            state.phase = Phase::Closed;
            state.futile += 1;
            state.backlog_len = 0;
            state.offset = 0;
            (
                (std::mem::take(&mut state.backlog), state.lower.take()),
                state.protocol.take(),
                tell,
            )
        };
        let remembered = this.remember_ends(py, held.1.as_ref());
        drop(held);
        this.session.drain(py)?;
        this.cancel_timer(py)?;
        if let Some(protocol) = protocol.filter(|_| tell) {
            let lost = protocol.bind(py).getattr(name!("connection_lost"))?;
            let scheduler = this.scheduler.bind(py);
            let reason = exc.clone();
            scheduler.call_method1(name!("call_soon"), (lost, reason))?;
        }
        let error = exc.map(PyErr::from_value);
        one_after_other(py, remembered, this.wake(py, error.as_ref()))
    }
}
