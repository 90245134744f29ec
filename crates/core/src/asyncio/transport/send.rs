//! How a stream transport sends: at once, as far as the socket takes it. Users of asyncio rely on this: what was written has
//! left before an `abort()`, an exception, a blocking call or the end of the process. It costs no more than waiting would
//! (docs/decisions/0003-writes-at-once.md). Only what a full socket does not take is queued; the engine gets it as one send in
//! flight at a time.
//!
//! So the outbox holds something only from the write that found the socket full to the completion after which nothing is
//! left; `sending.rs` has the states.

use proact_driver::{Completion, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::base::Transport;
use super::stream::StreamTransport;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::{copied, snapshot};
use crate::py::call::one_after_other;
use crate::py::errno::os_error;
use crate::py::native_method::{self, native_method};
use crate::reactor::target::Completes;

/// For a send, and for the poll by which a file waits for room.
pub(super) static SENDS: Completes<StreamTransport> =
    Completes::<StreamTransport>::new(|transport, arrived| {
        StreamTransport::sent(transport, &arrived.completion)
    })
    .that_owns(StreamTransport::owned);

impl StreamTransport {
    /// `write`: what is no `bytes` is copied.
    #[inline]
    pub fn write_copied(this: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let data = snapshot(data)?;
        let _claim = this.get().scheduler.get().claim()?;
        StreamTransport::write_bytes(this, data)
    }

    /// `write` for a transport above this one.
    #[inline]
    pub fn write_bytes(this: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        this.get().check_writable()?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        let transport = this.get();
        let (error, pauses) = {
            // Take the engine first: a write that is refused, in another thread, must have queued nothing.
            let mut io = transport.scheduler.get().io.get()?;
            let mut guard = transport.state.get()?;
            let state = &mut *guard;
            if state.life.phase >= Phase::Closing {
                drop((io, guard));
                return transport.warn_of_futile_write(this.py());
            }
            let bytes = data.as_bytes();
            let sent = if state.sending.is_free() {
                let op = Op::Send(ops::Send {
                    fd: state.life.fd,
                    buf: bytes.as_ptr(),
                    len: bytes.len(),
                    flags: 0,
                });
                // SAFETY: `data` outlives the call, which does not block.
                unsafe { io.driver.attempt(&op) }
            } else {
                0
            };
            if sent >= 0 && sent as usize == bytes.len() {
                return Ok(());
            }
            let error = if sent < 0 && sent != syscalls::AGAIN {
                sent
            } else {
                state.sending.out.push(data);
                state.sending.out.sent(this.py(), sent.max(0) as usize);
                state.sending.submit_queued(this, state.life.fd, &mut io)
            };
            (error, state.life.flow.would_pause(state.sending.out.len()))
        };
        Self::written(this, error, pauses)
    }

    /// After a write: the connection is lost, or the protocol has to pause. No other method of the protocol is called within a
    /// `write`.
    fn written(this: &Bound<'_, Self>, error: i32, pauses: bool) -> PyResult<()> {
        if error < 0 {
            return Self::fatal(this, os_error(error), "Fatal write error on socket transport");
        }
        if pauses {
            Self::maybe_pause_protocol(this)
        } else {
            Ok(())
        }
    }

    fn write_several(this: &Bound<'_, Self>, pieces: Vec<Bound<'_, PyBytes>>) -> PyResult<()> {
        let transport = this.get();
        let (error, pauses) = {
            let mut io = transport.scheduler.get().io.get()?;
            let mut guard = transport.state.get()?;
            let state = &mut *guard;
            if state.life.phase >= Phase::Closing {
                drop((io, guard));
                return transport.warn_of_futile_write(this.py());
            }
            let free = state.sending.is_free();
            for piece in pieces {
                if !piece.as_bytes().is_empty() {
                    state.sending.out.push(piece);
                }
            }
            let mut error = 0;
            if free {
                error = state.sending.send_queued(this.py(), state.life.fd, &mut io);
            }
            if error == 0 {
                error = state.sending.submit_queued(this, state.life.fd, &mut io);
            }
            (error, state.life.flow.would_pause(state.sending.out.len()))
        };
        Self::written(this, error, pauses)
    }

    /// The terminal completion of a send, or of the poll by which a file waits for room.
    pub fn sent(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let error = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut guard = this.get().state.get()?;
            let state = &mut *guard;
            let error = state.sending.completed(this.py(), completion.result);
            if state.life.phase >= Phase::Lost {
                drop((io, guard));
                return Self::finish_if_idle(this);
            }
            match error {
                0 => state.sending.submit_queued(this, state.life.fd, &mut io),
                error => error,
            }
        };
        if error < 0 {
            return Self::fatal(this, os_error(error), "Fatal write error on socket transport");
        }
        // The next send is submitted by now: what the protocol writes here comes behind it.
        let told = Self::maybe_resume_protocol(this);
        let drained = {
            let state = this.get().state.get()?;
            state.sending.is_idle() && state.life.phase < Phase::Lost
        };
        if drained {
            one_after_other(this.py(), told, Self::drained(this))
        } else {
            told
        }
    }

    /// Nothing is left to send: end our side if that was asked for, and finish closing.
    pub(super) fn drained(this: &Bound<'_, Self>) -> PyResult<()> {
        if Self::send_piece(this)? {
            return Ok(());
        }
        let (phase, eof, fd) = {
            let state = this.get().state.get()?;
            (state.life.phase, state.sending.eof, state.life.fd)
        };
        if phase == Phase::Closing {
            return Self::finish_if_idle(this);
        }
        if eof && phase == Phase::Open {
            let how = libc::SHUT_WR;
            let op = Op::Shutdown(ops::Shutdown { fd, how });
            // It can only fail where the connection is gone, and then receiving reports that.
            // SAFETY: a shutdown points at no memory.
            unsafe { this.get().scheduler.get().attempt(&op) }?;
        }
        Self::leave_if_idle(this)
    }
}

#[pymethods]
impl StreamTransport {
    /// Sends several pieces, which leave together.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().check_writable()?;
        let pieces = list_of_data
            .try_iter()?
            .map(|piece| copied(&piece?))
            .collect::<PyResult<Vec<_>>>()?;
        let _claim = slf.get().scheduler.get().claim()?;
        Self::write_several(slf, pieces)
    }

    /// Ends our side once everything queued is sent; receiving goes on.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        let idle = {
            let mut state = slf.get().state.get()?;
            if state.life.phase >= Phase::Closing || state.sending.eof {
                return Ok(());
            }
            state.sending.eof = true;
            state.sending.is_drained()
        };
        if idle { Self::drained(slf) } else { Ok(()) }
    }

    /// Whether the protocol was told to pause writing. The name is asyncio's.
    #[getter(_protocol_paused)]
    fn is_protocol_paused(&self) -> PyResult<bool> {
        Ok(self.state.get()?.life.flow.paused)
    }
}

native_method!(write, |call| {
    // SAFETY: a method of this class.
    let transport = unsafe { call.object_of::<StreamTransport>() };
    StreamTransport::write_copied(transport, call.argument("write", "data")?)?;
    Ok(call.py().None())
});

/// Gives the class its method `write`.
pub fn install(py: Python<'_>) -> PyResult<()> {
    native_method::add(
        &py.get_type::<StreamTransport>(),
        c"write",
        write,
        c"write($self, /, data)\n--\n\nSends bytes: now what the socket takes, the rest once it takes more. Never blocks.",
    )
}
