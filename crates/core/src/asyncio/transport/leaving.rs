//! A stream transport that leaves its loop: its connection goes on in a transport of another loop (`python/proact/handover.py`).
//!
//! ```text
//!              leave            no op is in flight, and everything is sent
//!   reading ───────────> leaving ─────────────────────────────────────────> Closed, without connection_lost
//!      ▲                  │   │                     `told` gets the fd
//!      └──────────────────┘   └──> Closing, Lost: `told` gets None, and the transport ends as ever
//!             stay                  close, abort, an error
//! ```
//!
//! While the transport leaves, its phase is `Open` and reading is paused: what has already been taken from the socket is kept, and goes
//! along. Writes are accepted; they are sent before the connection leaves.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::base::Transport;
use super::over_socket::OverSocket;
use super::rare::Rare;
use super::receiving::Piece;
use super::stream::{Leaving, Stream, StreamTransport};
use crate::asyncio::transport::phase::Phase;
use crate::py::call::one_after_other;
use crate::py::errno::io_error;
use crate::py::make::{name, py_error};

impl Stream {
    fn may_leave_now(&self) -> bool {
        self.leaving.is_some()
            && self.life.phase == Phase::Open
            && self.receiving.op.is_nothing()
            && self.sending.is_drained()
            && self.sending.file.is_none()
    }
}

impl StreamTransport {
    /// Leaves, if that was asked for and nothing is in flight any more.
    pub(super) fn leave_if_idle(this: &Bound<'_, Self>) -> PyResult<()> {
        if this.get().state.get()?.may_leave_now() {
            Self::soon(this, name!("_left"))
        } else {
            Ok(())
        }
    }

    /// The transport ends before it could leave.
    pub(super) fn cannot_leave(this: &Bound<'_, Self>) -> PyResult<()> {
        let leaving = this.get().state.get()?.leaving.take();
        match leaving {
            Some(leaving) => leaving.told.call1(this.py(), (this.py().None(),)).map(drop),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl StreamTransport {
    /// Calls `told` as soon as the connection may be used by another loop.
    #[pyo3(name = "_leave")]
    fn leave(slf: &Bound<'_, Self>, told: Py<PyAny>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        {
            let mut io = slf.get().scheduler.get().io.get()?;
            let mut state = slf.get().state.get()?;
            if state.life.phase != Phase::Open || state.leaving.is_some() {
                return Err(py_error::<PyRuntimeError>(
                    "only an open transport can be handed over, and only once",
                ));
            }
            let paused = state.receiving.is_paused();
            state.leaving = Some(Box::new(Leaving { told, paused }));
            state.receiving.pause(&mut io);
        }
        Self::leave_if_idle(slf)
    }

    /// Takes `_leave` back; false if the connection has left or ended.
    #[pyo3(name = "_stay")]
    fn stay(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let _claim = slf.get().scheduler.get().claim()?;
        let leaving = slf.get().state.get()?.leaving.take();
        let Some(leaving) = leaving else { return Ok(false) };
        if !leaving.paused {
            Self::resume_reading(slf)?;
        }
        Ok(true)
    }

    /// Whether `_leave` was called, and the connection is still here.
    #[getter(_is_leaving)]
    fn is_leaving(&self) -> PyResult<bool> {
        Ok(self.state.get()?.leaving.is_some())
    }

    /// Gives the connection up: the fd, and what was taken from it and not handed to the protocol.
    #[pyo3(name = "_left")]
    fn left(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if !this.state.get()?.may_leave_now() {
            return Ok(());
        }
        // The fd first: then another thread's `get_extra_info` makes no more Python socket that shares it.
        let fd = this.state.get()?.life.take_fd();
        let released = this.release_socket(py);
        this.scheduler
            .get()
            .io
            .get()?
            .give_up(fd, false)
            .map_err(io_error)?;
        if !matches!(released, Ok(true)) {
            // The program has closed the socket, and the fd with it.
            return one_after_other(py, released.map(drop), Self::lose(slf, None));
        }
        let (leaving, left) = {
            let state = &mut *this.state.get()?;
            state.life.phase = Phase::Closed;
            let left = (
                fd,
                state.life.protocol.take(),
                state.life.extra.as_ref().map(|extra| extra.clone_ref(py)),
                state.receiving.has_ended(),
                state.sending.eof,
            );
            (state.leaving.take(), (left, state.receiving.take_kept()))
        };
        let ((fd, protocol, extra, ended, eof_written), mut kept) = left;
        let pieces = PyList::empty(py);
        while let Some(piece) = kept.pop_front() {
            pieces.append(match piece {
                Piece::Data(data) => Some(data),
                Piece::End => None,
            })?;
        }
        let told = match leaving {
            Some(leaving) => {
                let left = (fd, protocol, extra, pieces, ended, eof_written, leaving.paused);
                leaving.told.call1(py, (left,)).map(drop)
            }
            None => Ok(()),
        };
        // After the other loop counts the connection, so that one of the two always does.
        let detached = this.attach(slf, name!("_detach"));
        let server = this.state.get()?.server.take();
        drop(server);
        one_after_other(py, told, detached)
    }

    /// Takes over what another transport has kept. To be called before the transport begins.
    #[pyo3(name = "_begin_with")]
    fn begin_with(
        &self,
        kept: Vec<Option<Py<PyBytes>>>,
        ended: bool,
        eof_written: bool,
        paused: bool,
    ) -> PyResult<()> {
        let mut pieces = Rare::default();
        for piece in kept {
            pieces.push_back(piece.map_or(Piece::End, Piece::Data));
        }
        let mut state = self.state.get()?;
        state.receiving.begin_with(pieces, ended, paused);
        state.sending.eof = eof_written;
        Ok(())
    }
}
