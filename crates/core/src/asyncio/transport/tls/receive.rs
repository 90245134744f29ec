//! How a TLS transport receives: what arrives is decrypted as far as it goes, and given to the protocol in one piece.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::session::Stop;
use super::{Below, Phase, READ_HIGH, TLSTransport, Told, reset};
use crate::asyncio::transport::protocol::data_received;
use crate::py::call::{method0, method1, stops_the_loop};
use crate::py::make::{Int, Text, name, pair};

impl TLSTransport {
    /// Bytes from the transport below.
    pub fn received(this: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let phase = this.get().phase()?;
        if matches!(phase, Phase::New | Phase::Closed) {
            return Ok(());
        }
        this.get().session.feed(this.py(), data)?;
        match phase {
            Phase::Wrapped => Self::read(this),
            Phase::Handshake => Self::handshake(this),
            Phase::Flushing => Self::flush(this),
            Phase::Shutdown => Self::shut_down(this),
            Phase::New | Phase::Closed => Ok(()),
        }
    }

    /// Hands over what can be decrypted, sends what the session answers, and pauses or resumes the transport below.
    pub(super) fn read(this: &Bound<'_, Self>) -> PyResult<()> {
        let (readable, paused, buffered) = {
            let state = this.get().state.get()?;
            let readable = matches!(state.phase, Phase::Wrapped | Phase::Flushing);
            (readable, state.paused, state.buffered)
        };
        if !readable {
            return Ok(());
        }
        let outcome = if paused {
            // The handshake's last message has to go out all the same: a program may pause within `connection_made`.
            Self::drain(this)
        } else {
            let read = if buffered {
                Self::read_into_buffers(this)
            } else {
                Self::read_joined(this)
            };
            // A session that has only decrypted has nothing to say, and what waited for it (a renegotiation) waits.
            read.and_then(|silent| {
                if silent && this.get().state.get()?.backlog.is_empty() {
                    return Ok(());
                }
                Self::send_backlog(this)
            })
        };
        match outcome.and_then(|()| Self::control_reading(this)) {
            Ok(()) => Ok(()),
            Err(error) if stops_the_loop(this.py(), &error) => Self::resume_soon(this).and(Err(error)),
            Err(error) => Self::fatal(this, error, "Fatal error on SSL protocol"),
        }
    }

    /// Lets the next turn go on where this one stopped.
    pub(super) fn resume_soon(this: &Bound<'_, Self>) -> PyResult<()> {
        this.get()
            .scheduler
            .get()
            .method_soon(this.as_any(), name!("_resumed"))
    }

    /// Returns whether the session has nothing to say to its peer.
    fn read_joined(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        let plain = this.get().session.read(py)?;
        if let Some(data) = plain.data
            && let Some(protocol) = this.get().protocol(py)?
        {
            data_received(&protocol, &data)?;
        }
        Self::stopped(this, plain.stop)?;
        Ok(plain.silent)
    }

    /// As [`Self::read_joined`].
    fn read_into_buffers(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        loop {
            let (wanted, buffered) = {
                let state = this.get().state.get()?;
                let open = matches!(state.phase, Phase::Wrapped | Phase::Flushing);
                (open && !state.paused, state.buffered)
            };
            let wanted = wanted && this.get().session.may_have_more()?;
            let Some(protocol) = this.get().protocol(py)?.filter(|_| wanted) else {
                return Ok(false);
            };
            if !buffered {
                return Self::read_joined(this);
            }
            let hint = Int::new(this.get().session.unread(py)?).into_pyobject(py)?;
            let buffer = method1(&protocol, name!("get_buffer"), hint.as_any())?;
            let (count, stop) = this.get().session.read_into(&buffer)?;
            drop(buffer);
            if count > 0 {
                let count = Int::new(count).into_pyobject(py)?;
                method1(&protocol, name!("buffer_updated"), count.as_any())?;
            }
            if let Some(stop) = stop {
                return Self::stopped(this, stop).and(Ok(false));
            }
        }
    }

    /// Reading came to a stop.
    fn stopped(this: &Bound<'_, Self>, stop: Stop) -> PyResult<()> {
        match stop {
            Stop::Wants => Ok(()),
            Stop::Failed(error) => Err(error),
            Stop::Closed => {
                let told = Self::deliver_end(this);
                Self::begin_close(this).and(told)
            }
        }
    }

    /// The peer has ended its side; the protocol is told once.
    pub(super) fn deliver_end(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let protocol = {
            let mut state = this.get().state.get()?;
            if state.told != Told::Made {
                return Ok(());
            }
            state.told = Told::Ended;
            state.protocol.as_ref().map(|protocol| protocol.bind(py).clone())
        };
        let Some(protocol) = protocol else { return Ok(()) };
        let keeps = method0(&protocol, name!("eof_received")).and_then(|keeps| keeps.is_truthy());
        match keeps {
            Ok(false) => Ok(()),
            Ok(true) => {
                let logger = py.import(name!("asyncio.log"))?.getattr(name!("logger"))?;
                let message = "returning true from eof_received() has no effect when using ssl";
                logger.call_method1(name!("warning"), (Text(message),)).map(drop)
            }
            Err(error) if stops_the_loop(py, &error) => Err(error),
            Err(error) => Self::fatal(this, error, "Error calling eof_received()"),
        }
    }

    /// A protocol that pauses leaves its bytes encrypted; too many of them pause the transport below.
    fn control_reading(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        {
            let state = transport.state.get()?;
            if !state.paused && !state.reading.paused {
                // Everything that could be decrypted was read.
                return Ok(());
            }
        }
        let unread = transport.session.unread(py)?;
        let change = {
            let mut state = transport.state.get()?;
            let change = if unread >= state.reading.high && !state.reading.paused {
                Some(true)
            } else if unread <= state.reading.low && state.reading.paused {
                Some(false)
            } else {
                None
            };
            if let Some(pause) = change {
                state.reading.paused = pause;
            }
            change
        };
        match (change, transport.lower(py)?) {
            (Some(pause), Some(lower)) => lower.pause_reading(py, pause),
            _ => Ok(()),
        }
    }

    /// The end of the stream below.
    fn ended(this: &Bound<'_, Self>) -> PyResult<bool> {
        let (phase, paused) = {
            let mut state = this.get().state.get()?;
            state.ended = true;
            let phase = state.phase;
            if phase == Phase::Wrapped {
                state.phase = Phase::Flushing;
            }
            (phase, state.paused)
        };
        match phase {
            Phase::New | Phase::Closed => {}
            Phase::Handshake => Self::handshake_failed(this, reset())?,
            // What was received goes to the protocol once it resumes.
            Phase::Wrapped if paused => return Ok(true),
            Phase::Wrapped => Self::flush(this)?,
            Phase::Flushing => {
                Self::send_backlog(this)?;
                this.get().state.get()?.phase = Phase::Shutdown;
                Self::shut_down(this)?;
            }
            Phase::Shutdown => Self::shut_down(this)?,
        }
        // What is encrypted and waits for the transport below would be lost if that closed now.
        Ok(this.get().state.get()?.below == Below::FullThenClosed)
    }
}

#[pymethods]
impl TLSTransport {
    fn data_received(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::received(slf, data)
    }

    /// True asks the transport below to stay open.
    fn eof_received(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let outcome = Self::ended(slf);
        if outcome.is_err()
            && let Some(lower) = slf.get().lower(slf.py())?
        {
            lower.close(slf.py())?;
        }
        outcome
    }

    fn is_reading(&self) -> PyResult<bool> {
        Ok(!self.state.get()?.paused)
    }

    fn pause_reading(&self) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        self.state.get()?.paused = true;
        Ok(())
    }

    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        if !std::mem::replace(&mut slf.get().state.get()?.paused, false) {
            return Ok(());
        }
        // Later, because the caller does not expect that its protocol is called within this call.
        Self::resume_soon(slf)
    }

    #[pyo3(name = "_resumed")]
    fn resumed(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().phase()? {
            Phase::Wrapped => Self::read(slf),
            Phase::Flushing => Self::flush(slf),
            Phase::Shutdown => Self::shut_down(slf),
            Phase::New | Phase::Handshake | Phase::Closed => Ok(()),
        }
    }

    /// The marks, in encrypted bytes, at which the transport below is paused and resumed.
    #[pyo3(signature = (high = None, low = None))]
    fn set_read_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        slf.get().state.get()?.reading.set_limits(high, low, READ_HIGH)?;
        Self::control_reading(slf)
    }

    fn get_read_buffer_limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = self.state.get()?.reading.limits();
        pair(py, limits)
    }

    fn get_read_buffer_size(&self, py: Python<'_>) -> PyResult<Int> {
        self.session.unread(py).map(Int::new)
    }
}
