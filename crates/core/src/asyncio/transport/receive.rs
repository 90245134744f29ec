//! How a stream transport receives.
//!
//! Normally one multishot receive stays in flight and each piece arrives as a `bytes`. A piece that fills its buffer
//! means that the peer sends in bulk: the multishot is ended, and from its terminal completion on the transport waits
//! for readability and receives up to `BULK` bytes at once, straight into the object that the protocol is given.
//! After `SMALL_STREAK` small receives it returns to pieces.

use std::num::NonZero;

use proact_driver::{Completion, Flags, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::protocol::Callee;
use super::stream::{Held, Mode, Stream, StreamTransport};
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::{bytes_memory, copy_bytes, shorten, uninit_bytes};
use crate::py::call::{one_after_other, stops_the_loop};
use crate::py::errno::{io_error, os_error};
use crate::py::make::name;
use crate::reactor::io::{Io, Sent};
use crate::reactor::slots::Target;

/// The most that one bulk receive takes, in bytes: 64 KiB with what TLS adds to them, and more. An object of this size
/// stays below glibc's mmap and trim thresholds (128 KiB): with larger ones each receive gave its pages back and
/// faulted them in again (13 faults a message).
const BULK: usize = 96 * 1024;
/// A bulk receive below this counts as small.
const SMALL: usize = 4096;
const SMALL_STREAK: u8 = 8;

impl Stream {
    fn wants_data(&self) -> bool {
        self.phase == Phase::Open && !self.paused && !self.ended && self.receiving.is_none()
    }

    /// Asks the receive in flight to end.
    pub(super) fn stop_receiving(&mut self, io: &mut Io) {
        if let Some(token) = self.receiving
            && !self.stopping
        {
            self.stopping = true;
            io.cancel(token.get());
        }
    }
}

impl StreamTransport {
    /// Puts a receive in flight, unless there is one or none is wanted.
    pub(super) fn receive(this: &Bound<'_, Self>) -> PyResult<()> {
        let refused = {
            let mut state = this.get().state.get()?;
            if !state.wants_data() {
                return Ok(());
            }
            let mut io = this.get().scheduler.get().io.get()?;
            let (fd, reference) = (state.fd, this.clone().unbind());
            let (op, target) = match state.mode {
                Mode::Pieces => (
                    Op::RecvMulti(ops::RecvMulti { fd }),
                    Target::StreamReceive(reference),
                ),
                Mode::Bulk => (
                    Op::PollMulti(ops::PollMulti {
                        fd,
                        events: libc::POLLIN as u32,
                    }),
                    Target::StreamReadable(reference),
                ),
            };
            // SAFETY: neither op points at memory.
            match unsafe { io.submit(op, target) } {
                Sent::Pending(token) => {
                    state.receiving = NonZero::new(token);
                    state.stopping = false;
                    None
                }
                Sent::Ready(error) => Some(error),
            }
        };
        match refused {
            Some(error) => Self::fatal(this, os_error(error), "Fatal read error on socket transport"),
            None => Ok(()),
        }
    }

    /// A completion of the multishot receive.
    pub fn received(
        this: &Bound<'_, Self>,
        completion: &Completion,
        data: Option<Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let transport = this.get();
        let deliver = {
            let mut state = transport.state.get()?;
            if completion.is_terminal() {
                state.receiving = None;
            } else if completion.flags.contains(Flags::FULL) && !state.stopping {
                state.mode = Mode::Bulk;
                state.stop_receiving(&mut *transport.scheduler.get().io.get()?);
            }
            state.phase == Phase::Open
        };
        let outcome = match data {
            Some(data) if deliver => Self::deliver(this, Held::Data(data.unbind())),
            None if deliver => Self::receive_ended(this, completion.result),
            _ => Ok(()),
        };
        Self::settle_after(this, completion, outcome)
    }

    /// The socket is readable, in bulk mode.
    pub fn readable(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let transport = this.get();
        let (fd, wanted) = {
            let mut state = transport.state.get()?;
            if completion.is_terminal() {
                state.receiving = None;
            }
            (
                state.fd,
                state.phase == Phase::Open && !state.paused && !state.ended && !state.stopping,
            )
        };
        let outcome = match completion.result {
            0.. if wanted => Self::receive_bulk(this, fd),
            error if wanted => Self::receive_ended(this, error),
            _ => Ok(()),
        };
        Self::settle_after(this, completion, outcome)
    }

    /// One large receive into the object that the protocol gets.
    fn receive_bulk(this: &Bound<'_, Self>, fd: i32) -> PyResult<()> {
        let py = this.py();
        let Some((callee, buffered)) = this.get().callee(py)? else {
            return Ok(());
        };
        let count = if buffered {
            let buffer = match callee.get_buffer(-1) {
                Ok(buffer) => buffer,
                Err(error) => {
                    return Self::fatal(this, error, "Fatal error: protocol.get_buffer() call failed.");
                }
            };
            let op = Op::Recv(ops::Recv {
                fd,
                buf: buffer.ptr(),
                len: buffer.len(),
                flags: 0,
            });
            // SAFETY: the buffer is exported, writable and contiguous while the call lasts.
            let count = unsafe { op.attempt() };
            drop(buffer);
            if count > 0 {
                Self::updated(this, &callee, count as usize)?;
            }
            count
        } else {
            let bytes = uninit_bytes(py, BULK)?;
            // SAFETY: a fresh object of just this length that nobody else has seen.
            let count = unsafe {
                Op::Recv(ops::Recv {
                    fd,
                    buf: bytes_memory(&bytes),
                    len: BULK,
                    flags: 0,
                })
                .attempt()
            };
            if count > 0 {
                let data = shorten(bytes, count as usize)?;
                Self::deliver_to(this, &callee, false, &data)?;
            }
            count
        };
        match count {
            syscalls::AGAIN => Ok(()),
            end if end <= 0 => Self::receive_ended(this, end),
            count => {
                let mut state = this.get().state.get()?;
                state.small = if (count as usize) < SMALL {
                    state.small.saturating_add(1)
                } else {
                    0
                };
                if state.small >= SMALL_STREAK && !state.buffered {
                    state.small = 0;
                    state.mode = Mode::Pieces;
                    state.stop_receiving(&mut *this.get().scheduler.get().io.get()?);
                }
                Ok(())
            }
        }
    }

    /// A terminal result of a receive: the end of the stream, an error, or our own cancel.
    fn receive_ended(this: &Bound<'_, Self>, result: i32) -> PyResult<()> {
        match result {
            0 => Self::deliver(this, Held::End),
            error if error == -libc::ECANCELED => Ok(()),
            error => Self::fatal(this, os_error(error), "Fatal read error on socket transport"),
        }
    }

    /// Hands something over, or keeps it while reading is paused.
    fn deliver(this: &Bound<'_, Self>, arrived: Held) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        {
            let mut state = transport.state.get()?;
            if matches!(arrived, Held::End) {
                state.ended = true;
            }
            if state.paused || !state.held.is_empty() {
                state.held.push_back(arrived);
                return Ok(());
            }
        }
        let Some((callee, buffered)) = transport.callee(py)? else {
            return Ok(());
        };
        match arrived {
            Held::Data(data) => Self::deliver_to(this, &callee, buffered, data.bind(py)),
            Held::End => Self::deliver_end(this, &callee),
        }
    }

    #[inline]
    fn deliver_to(
        this: &Bound<'_, Self>,
        callee: &Callee<'_>,
        buffered: bool,
        data: &Bound<'_, PyBytes>,
    ) -> PyResult<()> {
        if !buffered {
            return match callee.data_received(data) {
                Ok(()) => Ok(()),
                Err(error) => Self::fatal(this, error, "Fatal error: protocol.data_received() call failed."),
            };
        }
        let mut rest = data.as_bytes();
        while !rest.is_empty() {
            let buffer = match callee.get_buffer(rest.len() as isize) {
                Ok(buffer) => buffer,
                Err(error) => {
                    Self::keep(this, &error, rest)?;
                    return Self::fatal(this, error, "Fatal error: protocol.get_buffer() call failed.");
                }
            };
            let (piece, left) = rest.split_at(rest.len().min(buffer.len()));
            // SAFETY: the buffer is exported, writable, contiguous and no shorter than the piece.
            unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), buffer.ptr(), piece.len()) };
            drop(buffer);
            if let Err(error) = Self::updated(this, callee, piece.len()) {
                Self::keep(this, &error, left)?;
                return Err(error);
            }
            rest = left;
            if rest.is_empty() {
                break;
            }
            // The protocol may have closed, paused, or made place for another one.
            let goes_on = {
                let state = this.get().state.get()?;
                if state.phase != Phase::Open {
                    break;
                }
                let same = state.protocol.as_ref().is_some_and(|it| it.is(&callee.protocol));
                same && !state.paused
            };
            if !goes_on {
                let rest = copy_bytes(this.py(), rest)?.unbind();
                this.get().state.get()?.held.push_front(Held::Data(rest));
                return Self::deliver_held(this);
            }
        }
        Ok(())
    }

    /// What was not handed over when a protocol stopped the loop comes in the next run, as it would out of the socket.
    fn keep(this: &Bound<'_, Self>, error: &PyErr, rest: &[u8]) -> PyResult<()> {
        if rest.is_empty() || !stops_the_loop(this.py(), error) {
            return Ok(());
        }
        let rest = copy_bytes(this.py(), rest)?;
        {
            let mut state = this.get().state.get()?;
            if state.phase != Phase::Open {
                return Ok(());
            }
            state.held.push_front(Held::Data(rest.unbind()));
        }
        Self::soon(this, name!("_deliver_held"))
    }

    fn updated(this: &Bound<'_, Self>, callee: &Callee<'_>, count: usize) -> PyResult<()> {
        match callee.buffer_updated(count) {
            Ok(()) => Ok(()),
            Err(error) => Self::fatal(this, error, "Fatal error: protocol.buffer_updated() call failed."),
        }
    }

    /// The peer has ended its side.
    fn deliver_end(this: &Bound<'_, Self>, callee: &Callee<'_>) -> PyResult<()> {
        let outcome = callee
            .call0(name!("eof_received"))
            .and_then(|keep| keep.is_truthy());
        match outcome {
            // The protocol still has something to say.
            Ok(true) => {
                let mut state = this.get().state.get()?;
                let mut io = this.get().scheduler.get().io.get()?;
                state.stop_receiving(&mut io);
                Ok(())
            }
            Ok(false) => Self::begin_close(this),
            // It has heard of the end, and is not asked again.
            Err(error) if stops_the_loop(this.py(), &error) => Self::begin_close(this).and(Err(error)),
            Err(error) => Self::fatal(this, error, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    /// Goes on after a completion that was terminal, whatever the protocol has raised: the next run finds all in its place.
    fn settle_after(this: &Bound<'_, Self>, completion: &Completion, outcome: PyResult<()>) -> PyResult<()> {
        if completion.is_terminal() {
            one_after_other(this.py(), outcome, Self::settle(this))
        } else {
            outcome
        }
    }

    /// No receive is in flight any more: begin the next, or finish closing.
    pub(super) fn settle(this: &Bound<'_, Self>) -> PyResult<()> {
        let phase = this.get().state.get()?.phase;
        match phase {
            Phase::Open => Self::receive(this),
            Phase::Closing | Phase::Lost => Self::finish_if_idle(this),
            Phase::New | Phase::Closed => Ok(()),
        }
    }
}

#[pymethods]
impl StreamTransport {
    /// Nothing is taken from the socket any more when this returns: it may go to somebody else.
    fn pause_reading(&self) -> PyResult<()> {
        let mut io = self.scheduler.get().io.get()?;
        let mut state = self.state.get()?;
        if state.phase >= Phase::Closing || state.paused {
            return Ok(());
        }
        state.paused = true;
        state.stop_receiving(&mut io);
        if io.driver.acts_between_waits() {
            io.driver.flush().map_err(io_error)?;
        }
        Ok(())
    }

    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().scheduler.get().check_free()?;
        let has_held = {
            let mut state = slf.get().state.get()?;
            if state.phase >= Phase::Closing || !state.paused {
                return Ok(());
            }
            state.paused = false;
            !state.held.is_empty()
        };
        // Not from here: the caller does not expect to be called back.
        if has_held {
            Self::soon(slf, name!("_deliver_held"))
        } else {
            Self::receive(slf)
        }
    }

    /// What arrived while reading was paused, in its order.
    #[pyo3(name = "_deliver_held")]
    fn deliver_held(slf: &Bound<'_, Self>) -> PyResult<()> {
        loop {
            let held = {
                let mut state = slf.get().state.get()?;
                if state.paused || state.phase != Phase::Open {
                    return Ok(());
                }
                state.held.pop_front()
            };
            let Some(held) = held else {
                return Self::receive(slf);
            };
            let Some((callee, buffered)) = slf.get().callee(slf.py())? else {
                return Ok(());
            };
            let outcome = match held {
                Held::Data(data) => Self::deliver_to(slf, &callee, buffered, data.bind(slf.py())),
                Held::End => Self::deliver_end(slf, &callee),
            };
            if outcome.is_err() {
                // What is behind it comes in the next run.
                return Self::soon(slf, name!("_deliver_held")).and(outcome);
            }
        }
    }
}
