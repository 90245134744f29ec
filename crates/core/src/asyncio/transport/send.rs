//! How a stream transport sends: at once, as far as the socket takes it. asyncio's users rely on it (what was written has
//! left before an `abort()`, an exception, a blocking call or the end of the process), and it costs no more than to wait:
//! docs/decisions/0003-writes-at-once.md. Only what a full socket does not take is queued, and goes to the engine as one
//! send in flight at a time.
//!
//! So the outbox holds something only while `sending` is set, from the write that found the socket full to the completion
//! after which nothing is left.

use std::num::NonZero;

use proact_driver::{Completion, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::stream::{Stream, StreamTransport};
use crate::asyncio::transport::futile::futile_write;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::{copied, snapshot};
use crate::py::call::{exception, method0, one_after_other, stops_the_loop};
use crate::py::errno::os_error;
use crate::py::make::{Name, Text, name};
use crate::reactor::io::{Io, Sent};
use crate::reactor::slots::Target;

impl Stream {
    /// Sends what is queued, where no send is in flight, as far as the socket takes it: 0, or the error that ends the
    /// connection. One call carries a bounded part of it.
    pub(super) fn send_queued(&mut self, py: Python<'_>) -> i32 {
        while !self.out.is_empty() {
            let Some(op) = self.out.op(py, self.fd) else { break };
            // SAFETY: the outbox keeps the chunks, and nobody changes it while the call lasts.
            match unsafe { op.attempt() } {
                syscalls::AGAIN => break,
                error if error < 0 => return error,
                count => self.out.sent(py, count as usize),
            }
        }
        0
    }

    /// Hands what is queued to the engine: 0, or the error that ends the connection.
    fn submit_queued(&mut self, this: &Bound<'_, StreamTransport>, io: &mut Io) -> i32 {
        while !self.out.is_empty() {
            let Some(op) = self.out.op(this.py(), self.fd) else {
                break;
            };
            // SAFETY: the chunks and the message belong to the outbox, which the slot's reference to the transport
            // keeps; they stay put while `sending` is set.
            match unsafe { io.submit(op, Target::StreamSend(this.clone().unbind())) } {
                Sent::Pending(token) => {
                    self.sending = NonZero::new(token);
                    break;
                }
                Sent::Ready(error) if error < 0 => return error,
                Sent::Ready(count) => self.out.sent(this.py(), count as usize),
            }
        }
        0
    }
}

impl StreamTransport {
    /// `write` for a transport above this one.
    #[inline]
    pub fn write_bytes(this: &Bound<'_, Self>, data: Bound<'_, PyBytes>) -> PyResult<()> {
        this.get().check_writable()?;
        if data.as_bytes().is_empty() {
            return Ok(());
        }
        let transport = this.get();
        let (error, pauses) = {
            // Taken first: a write that is refused, in another thread, has queued nothing.
            let mut io = transport.scheduler.get().io.get()?;
            let mut state = transport.state.get()?;
            if state.phase >= Phase::Closing {
                drop((io, state));
                return transport.warn_of_futile_write(this.py());
            }
            let bytes = data.as_bytes();
            let idle = state.sending.is_none();
            let sent = if idle {
                let op = Op::Send(ops::Send {
                    fd: state.fd,
                    buf: bytes.as_ptr(),
                    len: bytes.len(),
                    flags: 0,
                });
                // SAFETY: `data` outlives the call, which does not block.
                unsafe { op.attempt() }
            } else {
                0
            };
            if sent >= 0 && sent as usize == bytes.len() {
                return Ok(());
            }
            let error = if sent < 0 && sent != syscalls::AGAIN {
                sent
            } else {
                state.out.push(data);
                state.out.sent(this.py(), sent.max(0) as usize);
                if idle {
                    state.submit_queued(this, &mut io)
                } else {
                    0
                }
            };
            (error, state.flow.would_pause(state.out.len()))
        };
        Self::written(this, error, pauses)
    }

    /// What follows a write: the connection is lost, or the protocol has to pause. Nothing else is called back, for the
    /// caller is in a `write`.
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
            let mut state = transport.state.get()?;
            if state.phase >= Phase::Closing {
                drop((io, state));
                return transport.warn_of_futile_write(this.py());
            }
            let idle = state.sending.is_none();
            for piece in pieces {
                if !piece.as_bytes().is_empty() {
                    state.out.push(piece);
                }
            }
            let mut error = 0;
            if idle {
                error = state.send_queued(this.py());
                if error == 0 {
                    error = state.submit_queued(this, &mut io);
                }
            }
            (error, state.flow.would_pause(state.out.len()))
        };
        Self::written(this, error, pauses)
    }

    fn warn_of_futile_write(&self, py: Python<'_>) -> PyResult<()> {
        let futile = {
            let mut state = self.state.get()?;
            state.futile += 1;
            state.futile
        };
        futile_write(py, futile)
    }

    pub(super) fn maybe_pause_protocol(this: &Bound<'_, Self>) -> PyResult<()> {
        let pauses = {
            let mut state = this.get().state.get()?;
            let size = state.out.len();
            state.flow.pauses(size)
        };
        // The caller is the program, possibly inside the transport's context already: it is called in whatever it has.
        if pauses {
            Self::flow(this, name!("pause_writing"), false)
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
            Self::flow(this, name!("resume_writing"), true)
        } else {
            Ok(())
        }
    }

    /// `pause_writing` or `resume_writing`; what it raises is reported and changes nothing.
    fn flow(this: &Bound<'_, Self>, method: &'static Name, enters: bool) -> PyResult<()> {
        let py = this.py();
        let Some((callee, _)) = this.get().callee(py)? else {
            return Ok(());
        };
        let outcome = if enters {
            callee.call0(method)
        } else {
            method0(&callee.protocol, method)
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) if stops_the_loop(py, &error) => Err(error),
            Err(error) => {
                let scheduler = this.get().scheduler.bind(py);
                let message = format!("protocol.{}() failed", method.text());
                scheduler
                    .call_method1(
                        name!("_protocol_failed"),
                        (this, exception(py, &error), Text(message)),
                    )
                    .map(drop)
            }
        }
    }

    /// The terminal completion of a send, or of the poll for the sake of a file.
    pub fn sent(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let error = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            state.sending = None;
            let polled = std::mem::take(&mut state.waits_for_room);
            if state.phase >= Phase::Lost {
                drop((io, state));
                return Self::finish_if_idle(this);
            }
            if !polled && completion.result >= 0 {
                state.out.sent(this.py(), completion.result as usize);
            }
            // What was written while a file was sent, and since it was given up.
            if polled || completion.result >= 0 {
                state.submit_queued(this, &mut io)
            } else {
                completion.result
            }
        };
        if error < 0 {
            return Self::fatal(this, os_error(error), "Fatal write error on socket transport");
        }
        // The next send is on its way before the protocol can write behind it.
        let told = Self::maybe_resume_protocol(this);
        let drained = {
            let state = this.get().state.get()?;
            state.sending.is_none() && state.phase < Phase::Lost
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
    /// Sends bytes: now what the socket takes, the rest once it takes more. Never blocks.
    fn write(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::write_bytes(slf, snapshot(data)?)
    }

    /// Sends several pieces, which leave together.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.get().check_writable()?;
        let pieces = list_of_data
            .try_iter()?
            .map(|piece| copied(&piece?))
            .collect::<PyResult<Vec<_>>>()?;
        Self::write_several(slf, pieces)
    }

    /// Ends our side once everything queued is sent; receiving goes on.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().scheduler.get().check_free()?;
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
