//! How a stream transport sends: writes are queued, and flushed once at the end of the turn by one vectored send,
//! which the engine carries with the call that waits. One send is in flight at a time. What is large is tried at once
//! instead: its bytes are still in the cache, and their memory is free again before the next receive needs some
//! (docs/decisions/0003-large-writes.md).

use std::num::NonZero;

use proact_driver::{Completion, syscalls};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::stream::{Phase, StreamTransport};
use crate::call::{exception, method0, os_error, stops_the_loop};
use crate::io::Sent;
use crate::slots::Target;

/// From this many bytes on, a write is tried at once.
const LARGE: usize = 32 * 1024;
/// asyncio's: a program that goes on writing into a lost connection is told in the log.
pub(super) const FUTILE_WRITES: u32 = 5;

/// The immutable bytes of what a program writes: itself if it is `bytes`, else a snapshot.
pub(super) fn snapshot<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
    {
        // SAFETY: returns a new exact bytes object, or null with an exception set.
        let bytes =
            unsafe { Bound::from_owned_ptr_or_err(data.py(), pyo3::ffi::PyBytes_FromObject(data.as_ptr()))? };
        return Ok(bytes.cast_into()?);
    }
    let kind = data.get_type();
    let message = format!(
        "data argument must be a bytes-like object, not {}",
        kind.name()?.repr()?
    );
    Err(PyTypeError::new_err(message))
}

impl StreamTransport {
    /// `write` for a transport above this one.
    #[inline]
    pub fn write_bytes(this: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        this.get().check_writable()?;
        Self::queue(this, data)
    }

    fn queue(this: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        let transport = this.get();
        let (join, pause, large) = {
            let mut state = transport.state.get()?;
            if state.phase >= Phase::Closing {
                state.futile += 1;
                let futile = state.futile;
                drop(state);
                if futile >= FUTILE_WRITES {
                    let logger = this.py().import("asyncio.log")?.getattr("logger")?;
                    logger.call_method1("warning", ("socket.send() raised exception.",))?;
                }
                return Ok(());
            }
            state.out.push(data);
            // With a send in flight its completion flushes.
            let join = !state.in_flush && state.sending.is_none();
            state.in_flush |= join;
            let large = state.out.len() >= LARGE && state.sending.is_none();
            (join, state.flow.would_pause(state.out.len()), large)
        };
        let pause = if large { Self::send_now(this)? } else { pause };
        let join = join && {
            let mut state = transport.state.get()?;
            state.in_flush =
                state.phase < Phase::Lost && (!state.out.is_empty() || state.flow.paused || state.eof);
            state.in_flush
        };
        if join {
            // Refused where another thread writes, which asyncio does not permit: the next write tries again.
            if let Err(error) = transport.scheduler.get().join_flush(this.clone().unbind()) {
                transport.state.get()?.in_flush = false;
                return Err(error);
            }
        }
        if pause {
            Self::maybe_pause_protocol(this)
        } else {
            Ok(())
        }
    }

    /// One attempt to send what is queued; whether too much is left. Nothing is called back: the caller is in a `write`.
    fn send_now(this: &Bound<'_, Self>) -> PyResult<bool> {
        let result = {
            let mut state = this.get().state.get()?;
            let fd = state.fd;
            let Some(op) = state.out.op(this.py(), fd) else {
                return Ok(false);
            };
            // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
            let result = unsafe { syscalls::attempt(&op) };
            if result >= 0 {
                state.out.sent(this.py(), result as usize);
            }
            if result >= 0 || result == syscalls::AGAIN {
                return Ok(state.flow.would_pause(state.out.len()));
            }
            result
        };
        Self::fatal(this, os_error(result), "Fatal write error on socket transport").map(|()| false)
    }

    pub(super) fn maybe_pause_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let pauses = {
            let mut state = this.get().state.get()?;
            let size = state.out.len();
            state.flow.pauses(size)
        };
        // The caller is the program, possibly inside the transport's context already: it is called in whatever it has.
        if pauses {
            Self::flow(this, "pause_writing", false)
        } else {
            Ok(())
        }
    }

    fn maybe_resume_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let resumes = {
            let mut state = this.get().state.get()?;
            let size = state.out.len();
            state.flow.resumes(size)
        };
        if resumes {
            Self::flow(this, "resume_writing", true)
        } else {
            Ok(())
        }
    }

    /// `pause_writing` or `resume_writing`; what it raises is reported and changes nothing.
    fn flow(this: &Bound<'_, Self>, method: &str, enters: bool) -> PyResult<()> {
        let py = this.py();
        let Some((callee, _)) = this.get().callee(py)? else {
            return Ok(());
        };
        let name = pyo3::types::PyString::intern(py, method);
        let outcome = if enters {
            callee.call0(&name)
        } else {
            method0(&callee.protocol, &name)
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) if stops_the_loop(py, &error) => Err(error),
            Err(error) => {
                let scheduler = this.get().scheduler.bind(py);
                let message = format!("protocol.{method}() failed");
                scheduler
                    .call_method1("_protocol_failed", (this, exception(py, &error), message))
                    .map(drop)
            }
        }
    }

    /// Sends what is queued: `at_once` by a system call of its own as far as the socket takes it, the rest by the engine.
    pub fn flush(this: &Bound<'_, Self>, mut at_once: bool) -> PyResult<()> {
        let py = this.py();
        loop {
            let result = {
                let mut state = this.get().state.get()?;
                state.in_flush = false;
                if state.sending.is_some() || state.phase >= Phase::Lost {
                    return Ok(());
                }
                let fd = state.fd;
                let Some(op) = state.out.op(py, fd).filter(|_| !state.out.is_empty()) else {
                    break;
                };
                let tried = if std::mem::take(&mut at_once) {
                    // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
                    unsafe { syscalls::attempt(&op) }
                } else {
                    syscalls::AGAIN
                };
                match tried {
                    syscalls::AGAIN => {
                        let mut io = this.get().scheduler.get().io.get()?;
                        // SAFETY: the chunks and the message belong to the outbox, which the slot's reference to this
                        // transport keeps; they stay put while `sending` is set.
                        match unsafe { io.submit(op, Target::StreamSend(this.clone().unbind())) } {
                            Sent::Pending(token) => {
                                state.sending = NonZero::new(token);
                                return Ok(());
                            }
                            Sent::Ready(result) => result,
                        }
                    }
                    result => result,
                }
            };
            let left = this
                .get()
                .state
                .get()?
                .out
                .len()
                .saturating_sub(result.max(0) as usize);
            match Self::account(this, result) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Self::flush_later(this).and(Err(error)),
            }
            if left == 0 {
                // What `resume_writing` wrote meanwhile has joined the next flush: a turn ends.
                break;
            }
        }
        let mut told = Ok(());
        if this.get().state.get()?.out.is_empty() {
            // A write that was sent at once has left nothing to be sent here, and told nobody.
            told = Self::maybe_resume_protocol(this);
        }
        if this.get().state.get()?.out.is_empty() {
            Self::drained(this)?;
        }
        told
    }

    /// Has the next turn send what is left, or finish: a `resume_writing` has stopped the loop.
    fn flush_later(this: &Bound<'_, Self>) -> PyResult<()> {
        {
            let mut state = this.get().state.get()?;
            // Whoever wrote may have joined already.
            if state.phase >= Phase::Lost || std::mem::replace(&mut state.in_flush, true) {
                return Ok(());
            }
        }
        this.get().scheduler.get().join_flush(this.clone().unbind())
    }

    /// The terminal completion of a send.
    pub fn sent(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let (lost, polled) = {
            let mut state = this.get().state.get()?;
            state.sending = None;
            let polled = std::mem::take(&mut state.waits_for_room);
            (state.phase >= Phase::Lost, polled)
        };
        if lost {
            return Self::finish_if_idle(this);
        }
        if polled {
            // The next piece of the file, or what was written since it was given up.
            return Self::flush(this, false);
        }
        match Self::account(this, completion.result) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Self::flush_later(this).and(Err(error)),
        }
        let join = {
            let mut state = this.get().state.get()?;
            if state.out.is_empty() {
                drop(state);
                return Self::drained(this);
            }
            // `resume_writing` may have written, and joined, already.
            !std::mem::replace(&mut state.in_flush, true)
        };
        if join {
            this.get().scheduler.get().join_flush(this.clone().unbind())
        } else {
            Ok(())
        }
    }

    /// Takes the result of a send into account; false if it ended the connection.
    fn account(this: &Bound<'_, Self>, result: i32) -> PyResult<bool> {
        if result < 0 {
            let error = os_error(result);
            Self::fatal(this, error, "Fatal write error on socket transport")?;
            return Ok(false);
        }
        let paused = {
            let mut state = this.get().state.get()?;
            state.out.sent(this.py(), result as usize);
            state.flow.paused
        };
        if paused {
            Self::maybe_resume_protocol(this)?;
        }
        Ok(this.get().state.get()?.phase < Phase::Lost)
    }

    /// Nothing is left to send: end our side if that was asked for, and finish closing.
    pub(super) fn drained(this: &Bound<'_, Self>) -> PyResult<()> {
        if Self::send_piece(this)? {
            return Ok(());
        }
        let (phase, eof, fd) = {
            let state = this.get().state.get()?;
            (state.phase, state.eof, state.fd)
        };
        if phase == Phase::Closing {
            return Self::finish_if_idle(this);
        }
        if eof && phase == Phase::Open {
            // SAFETY: the transport's own fd. It can only fail where the connection is gone, which reading tells.
            unsafe { libc::shutdown(fd, libc::SHUT_WR) };
        }
        Ok(())
    }
}

#[pymethods]
impl StreamTransport {
    /// Queues bytes to be sent; never blocks.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::write_bytes(slf, snapshot(data)?)
    }

    /// Queues several pieces, which leave together.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().check_writable()?;
        let pieces = list_of_data
            .try_iter()?
            .map(|piece| snapshot(&piece?))
            .collect::<PyResult<Vec<_>>>()?;
        pieces.into_iter().try_for_each(|piece| Self::queue(slf, piece))
    }

    /// Ends our side once everything queued is sent; receiving goes on.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        let idle = {
            let mut state = slf.get().state.get()?;
            if state.phase >= Phase::Closing || state.eof {
                return Ok(());
            }
            state.eof = true;
            state.out.is_empty() && state.sending.is_none()
        };
        if idle { Self::drained(slf) } else { Ok(()) }
    }

    /// The event loop's name for the protocol's waiting writers.
    #[getter(_protocol_paused)]
    fn is_protocol_paused(&self) -> PyResult<bool> {
        Ok(self.state.get()?.flow.paused)
    }
}
