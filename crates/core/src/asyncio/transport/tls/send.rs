//! How a TLS transport sends: what is written is encrypted and given to the transport below within the write.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyTuple};

use super::{Below, Phase, State, TLSTransport, WRITE_HIGH};
use crate::asyncio::transport::futile::futile_write;
use crate::asyncio::transport::report;
use crate::py::bytes::{copy_bytes, snapshot};
use crate::py::call::{method0, one_after_other, stops_the_loop};
use crate::py::make::{Int, Name, name, pair, py_error};

/// Bytes that are encrypted before they go to the transport below: few enough that they are still in the cache.
const DRAIN: usize = 64 * 1024;

impl TLSTransport {
    fn queue(this: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        let py = this.py();
        let _claim = this.get().scheduler.get().claim()?;
        let size = data.as_bytes().len();
        if size == 0 {
            return Ok(());
        }
        let (phase, futile) = {
            let mut state = this.get().state.get()?;
            let phase = state.phase;
            if matches!(phase, Phase::Wrapped | Phase::Handshake) {
                state.backlog.push_back(data.unbind());
                state.backlog_len += size;
            } else {
                state.futile += 1;
            }
            (phase, state.futile)
        };
        match phase {
            Phase::Wrapped => match Self::send_backlog(this) {
                Ok(()) => Ok(()),
                Err(error) => Self::fatal(this, error, "Fatal error on SSL protocol"),
            },
            // The data is sent after the handshake.
            Phase::Handshake => Ok(()),
            _ => futile_write(py, futile - 1, "SSL connection is closed"),
        }
    }

    /// Encrypts what is queued, as far as the session takes it, and passes it on.
    pub(super) fn send_backlog(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        loop {
            let front = {
                let state = transport.state.get()?;
                // While the transport below is full, plain text stays as it is, which costs no memory. When the session ends,
                // everything is encrypted, because close_notify comes after it.
                let full = state.below != Below::Takes && state.undrained >= DRAIN;
                if full && state.phase == Phase::Wrapped {
                    break;
                }
                let front = state.backlog.front();
                front.map(|front| (front.bind(py).clone(), state.offset))
            };
            let Some((front, offset)) = front else { break };
            let Some(count) = transport.session.write(&front, offset, DRAIN)? else {
                break;
            };
            let (sent, drain) = {
                let mut state = transport.state.get()?;
                state.undrained += count;
                state.backlog_len = state.backlog_len.saturating_sub(count);
                state.offset += count;
                let whole = state.offset >= front.as_bytes().len();
                // Unless the connection was lost in the meantime.
                let sent = if whole { state.backlog.pop_front() } else { None };
                if whole {
                    state.offset = 0;
                }
                (sent, state.undrained >= DRAIN)
            };
            drop(sent);
            if drain {
                Self::pass_on(this)?;
            }
        }
        Self::drain(this)
    }

    /// Gives what is encrypted to the transport below, and tells the protocol whether to go on.
    pub(super) fn drain(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::pass_on(this)?;
        Self::control_writing(this)
    }

    fn pass_on(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let lower = {
            let mut state = this.get().state.get()?;
            if state.below != Below::Takes {
                return Ok(());
            }
            state.undrained = 0;
            state.lower.as_ref().map(|lower| lower.clone_ref(py))
        };
        let Some(lower) = lower else { return Ok(()) };
        let data = this.get().session.drain(py)?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        lower.write(data)
    }

    /// Has the protocol pause, or go on.
    fn control_writing(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        let full = {
            let state = transport.state.get()?;
            if state.below == Below::Takes && !state.writing.paused && state.backlog_len == 0 {
                // Everything has gone to the transport below.
                return Ok(());
            }
            state.below != Below::Takes
        };
        let encrypted = if full { transport.session.undrained(py)? } else { 0 };
        let method = transport.state.get()?.writing_changes(encrypted);
        let (Some(method), Some(protocol)) = (method, transport.protocol(py)?) else {
            return Ok(());
        };
        match method0(&protocol, method) {
            Ok(_) => Ok(()),
            Err(error) if stops_the_loop(py, &error) => Err(error),
            Err(error) => {
                let message = format!("protocol.{}() failed", method.text());
                report::protocol_failed(&this.get().scheduler, this.as_any(), &error, &message)
            }
        }
    }
}

impl State {
    /// What the protocol is to be told, if anything: it counts as told. `encrypted` bytes wait for the transport below.
    fn writing_changes(&mut self, encrypted: usize) -> Option<&'static Name> {
        let size = encrypted + self.backlog_len;
        if self.writing.paused {
            // Paused before the upgrade, and the transport below is still full of what was written then.
            let inherited = self.below != Below::Takes && self.phase == Phase::Handshake;
            let resumes = !inherited && self.writing.resumes(size);
            return resumes.then_some(name!("resume_writing"));
        }
        // With nothing held back, nothing would resume the protocol, whatever the mark.
        self.writing.paused = size > 0 && size >= self.writing.high;
        self.writing.paused.then_some(name!("pause_writing"))
    }
}

fn bytes_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let known = data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>();
    if !known {
        return Err(py_error::<PyTypeError>(format!(
            "data: expecting a bytes-like instance, got {}",
            data.get_type().name()?
        )));
    }
    snapshot(data)
}

#[pymethods]
impl TLSTransport {
    /// Encrypts bytes and queues them to be sent; never blocks.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::queue(slf, bytes_of(data)?)
    }

    /// Sends several pieces as one, in as few records as they fit into.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let joined = copy_bytes(slf.py(), b"")?.call_method1(name!("join"), (list_of_data,))?;
        Self::queue(slf, joined.cast_into()?)
    }

    /// TLS through `ssl` can't end one side only.
    fn write_eof(&self) -> PyResult<()> {
        Err(pyo3::exceptions::PyNotImplementedError::new_err(()))
    }

    fn can_write_eof(&self) -> bool {
        false
    }

    /// Bytes that wait for the transport below; what it holds itself is not counted.
    fn get_write_buffer_size(&self, py: Python<'_>) -> PyResult<Int> {
        let waiting = self.session.undrained(py)?;
        Ok(Int::new(waiting + self.state.get()?.backlog_len))
    }

    /// The water marks, `(low, high)`, in bytes.
    fn get_write_buffer_limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = self.state.get()?.writing.limits();
        pair(py, limits)
    }

    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        slf.get().state.get()?.writing.set_limits(high, low, WRITE_HIGH)?;
        Self::control_writing(slf)
    }

    /// Whether the protocol was told to pause writing. The name is asyncio's.
    #[getter(_protocol_paused)]
    fn is_protocol_paused(&self) -> PyResult<bool> {
        Ok(self.state.get()?.writing.paused)
    }

    /// The transport below has enough for now.
    fn pause_writing(&self) -> PyResult<()> {
        let mut state = self.state.get()?;
        if state.below == Below::Takes {
            state.below = Below::Full;
        }
        Ok(())
    }

    fn resume_writing(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (has_backlog, closes_lower) = {
            let mut state = slf.get().state.get()?;
            let was = std::mem::replace(&mut state.below, Below::Takes);
            (!state.backlog.is_empty(), was == Below::FullThenClosed)
        };
        if closes_lower {
            let drained = Self::drain(slf);
            return one_after_other(slf.py(), drained, Self::close_lower(slf));
        }
        if !has_backlog {
            return Self::drain(slf);
        }
        Self::pass_on(slf)?;
        match Self::send_backlog(slf) {
            Ok(()) => Ok(()),
            Err(error) => Self::fatal(slf, error, "Fatal error on SSL protocol"),
        }
    }
}
