//! How a stream transport ends.
//!
//! `Closing` waits until the outbox is empty, `Lost` only until no op is in flight. Then `connection_lost` is called, and after
//! it the fd is closed: no op uses its number any more.

use pyo3::prelude::*;

use super::base::Transport;
use super::over_socket::OverSocket;
use super::stream::StreamTransport;
use crate::asyncio::transport::phase::Phase;
use crate::py::call::one_after_other;
use crate::py::make::name;

impl StreamTransport {
    /// Closes once everything queued is sent.
    pub(super) fn begin_close(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            // Take the engine before anything changes: a call that is refused, in another thread, must have changed nothing.
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            if state.life.phase >= Phase::Closing {
                return Ok(());
            }
            state.life.phase = Phase::Closing;
            state.receiving.close(&mut io);
            if !state.is_over() {
                return Ok(());
            }
        }
        Self::soon(this, name!("_finish"))
    }

    /// Ends the connection now; what the socket does not take at once is dropped.
    pub(super) fn end_now(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let py = this.py();
        let reason = error.map(|error| error.into_value(py));
        {
            let mut io = this.get().scheduler.get().io.get()?;
            let state = &mut *this.get().state.get()?;
            if state.life.phase >= Phase::Lost {
                return Ok(());
            }
            state.life.phase = Phase::Lost;
            state.life.error = reason;
            state.receiving.close(&mut io);
            state.sending.cut(py, state.life.fd, &mut io);
            if !state.is_over() {
                return Ok(());
            }
        }
        Self::soon(this, name!("_finish"))
    }

    /// Finishes if closing and nothing is in flight.
    pub(super) fn finish_if_idle(this: &Bound<'_, Self>) -> PyResult<()> {
        let idle = {
            let mut state = this.get().state.get()?;
            if state.life.phase == Phase::Lost && state.sending.is_idle() {
                state.sending.out.clear();
            }
            state.is_over()
        };
        if idle { Self::finish(this) } else { Ok(()) }
    }
}

#[pymethods]
impl StreamTransport {
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
        let _claim = slf.get().scheduler.get().claim()?;
        Self::lose(slf, exc.map(PyErr::from_value))
    }

    /// Calls `connection_lost`, closes the fd and lets go of everything.
    #[pyo3(name = "_finish")]
    fn finish(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        Self::cut_file(slf)?;
        let (fd, error, protocol) = {
            let mut state = this.state.get()?;
            if !matches!(state.life.phase, Phase::Closing | Phase::Lost) {
                return Ok(());
            }
            state.life.phase = Phase::Closed;
            let life = &mut state.life;
            (life.take_fd(), life.error.take(), life.protocol.take())
        };
        // Each is done whatever the others raise.
        let lost = Self::tell_lost(slf, protocol, error);
        let given_up = this.give_up(py, fd);
        let detached = this.attach(slf, name!("_detach"));
        let server = this.state.get()?.server.take();
        drop(server);
        let stayed = Self::cannot_leave(slf);
        [given_up, detached, stayed]
            .into_iter()
            .fold(lost, |first, second| one_after_other(py, first, second))
    }
}
