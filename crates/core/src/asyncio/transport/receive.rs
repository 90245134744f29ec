//! How a stream transport receives.
//!
//! On a ring, normally one multishot receive stays in flight and each piece arrives as a `bytes`. A piece that fills its
//! buffer means that the peer sends in bulk: the multishot is ended, and from its terminal completion on the transport waits
//! for readability and receives up to `BULK` bytes at once, straight into the object that the protocol is given.
//! After a streak of small receives it returns to pieces. On the other engines it always waits for readability and then
//! receives, as asyncio does. `receiving.rs` has the states.

use proact_driver::{Completion, Flags, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::base::Transport;
use super::protocol::Callee;
use super::receiving::{Piece, Way};
use super::stream::StreamTransport;
use crate::asyncio::transport::phase::Phase;
use crate::py::bytes::copy_bytes;
use crate::py::call::{one_after_other, stops_the_loop};
use crate::py::errno::{io_error, os_error};
use crate::py::make::name;
use crate::reactor::target::{Completes, Target};

/// The most that one bulk receive takes, in bytes: 64 KiB with what TLS adds to them, and more. An object of this size
/// stays below glibc's mmap and trim thresholds (128 KiB): with larger ones each receive gave its pages back and
/// faulted them in again (13 faults a message).
const BULK: usize = 96 * 1024;
static RECEIVES: Completes<StreamTransport> = Completes::<StreamTransport>::new(|transport, arrived| {
    StreamTransport::received(transport, &arrived.completion, arrived.data)
})
.that_owns(StreamTransport::owned);

static IS_READABLE: Completes<StreamTransport> = Completes::<StreamTransport>::new(|transport, arrived| {
    StreamTransport::readable(transport, &arrived.completion)
})
.that_owns(StreamTransport::owned);

impl StreamTransport {
    /// Puts a receive in flight, unless there is one or none is wanted.
    pub(super) fn receive(this: &Bound<'_, Self>) -> PyResult<()> {
        let refused = {
            let state = &mut *this.get().state.get()?;
            let Some(way) = state
                .receiving
                .next_way()
                .filter(|_| state.life.phase == Phase::Open)
            else {
                return Ok(());
            };
            let mut io = this.get().scheduler.get().io.get()?;
            let (fd, reference) = (state.life.fd, this.clone().unbind());
            let op = &mut state.receiving.op;
            if way == Way::Pieces {
                // SAFETY: the op points at no memory.
                unsafe {
                    op.begin(
                        &mut io,
                        Op::RecvMulti(ops::RecvMulti { fd }),
                        Target::new(reference, &RECEIVES),
                    )
                }
            } else {
                op.watch(&mut io, fd, Target::new(reference, &IS_READABLE))
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
                state.receiving.op.over();
            } else if completion.flags.contains(Flags::FULL) {
                state
                    .receiving
                    .piece_was_full(&mut *transport.scheduler.get().io.get()?);
            }
            state.life.phase == Phase::Open
        };
        let outcome = match data {
            Some(data) if deliver => Self::deliver(this, Piece::Data(data.unbind())),
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
            let wanted = state.life.phase == Phase::Open && state.receiving.takes();
            if completion.is_terminal() {
                state.receiving.op.over();
            }
            (state.life.fd, wanted)
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
        let receiver = this.get().receiver(py, &*this.get().state.get()?);
        let Some((callee, buffered)) = receiver else {
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
            let count = unsafe { this.get().scheduler.get().attempt(&op) }?;
            drop(buffer);
            if count > 0 {
                Self::updated(this, &callee, count as usize)?;
            }
            count
        } else {
            let received = this.get().scheduler.get().io.get()?.receive(py, fd, BULK)?;
            match received {
                Ok(data) => {
                    let count = data.as_bytes().len() as i32;
                    if count > 0 {
                        Self::hand_over(this, Some((callee, false)), Piece::Data(data.unbind()))?;
                    }
                    count
                }
                Err(error) => error,
            }
        };
        match count {
            syscalls::AGAIN => Ok(()),
            end if end <= 0 => Self::receive_ended(this, end),
            count => {
                let mut state = this.get().state.get()?;
                if state.receiving.ends_streak(count as usize) && !state.buffered {
                    let mut io = this.get().scheduler.get().io.get()?;
                    if io.driver.acts_between_waits() {
                        state.receiving.back_to_pieces(&mut io);
                    }
                }
                Ok(())
            }
        }
    }

    /// A terminal result of a receive: the end of the stream, an error, or our own cancel.
    fn receive_ended(this: &Bound<'_, Self>, result: i32) -> PyResult<()> {
        match result {
            0 => Self::deliver(this, Piece::End),
            error if error == -libc::ECANCELED => Ok(()),
            error => Self::fatal(this, os_error(error), "Fatal read error on socket transport"),
        }
    }

    /// Hands something over, or keeps it while reading is paused.
    #[inline]
    fn deliver(this: &Bound<'_, Self>, piece: Piece) -> PyResult<()> {
        let transport = this.get();
        let (piece, receiver) = {
            let mut state = transport.state.get()?;
            if matches!(piece, Piece::End) {
                state.receiving.end(&mut *transport.scheduler.get().io.get()?);
            }
            let Some(piece) = state.receiving.arrived(piece) else {
                return Ok(());
            };
            (piece, transport.receiver(this.py(), &state))
        };
        Self::hand_over(this, receiver, piece)
    }

    #[inline]
    fn hand_over(this: &Bound<'_, Self>, receiver: Option<(Callee<'_>, bool)>, piece: Piece) -> PyResult<()> {
        let Some((callee, buffered)) = receiver else {
            return Ok(());
        };
        match piece {
            Piece::Data(data) => {
                let data = data.into_bound(this.py());
                Self::deliver_to(this, &callee, buffered, &data)?;
                // Not free in a forked child, whose parent's loop ran in another thread.
                if let Some(mut io) = this.get().scheduler.get().io.if_free() {
                    io.spare.take_back(data);
                }
                Ok(())
            }
            Piece::End => Self::deliver_end(this, &callee),
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
        Self::fill_buffers(this, callee, data.as_bytes())
    }

    /// Copies `rest` into the buffers of the protocol, one after the other. Each may close the transport, pause reading, or make
    /// place for another protocol, which then gets what is left.
    fn fill_buffers(this: &Bound<'_, Self>, callee: &Callee<'_>, mut rest: &[u8]) -> PyResult<()> {
        let py = this.py();
        let mut successor = None;
        while !rest.is_empty() {
            let callee = successor.as_ref().unwrap_or(callee);
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
            let is_same = {
                let state = &mut *this.get().state.get()?;
                if rest.is_empty() || state.life.phase != Phase::Open {
                    return Ok(());
                }
                if state.receiving.is_paused() {
                    state.receiving.keep_first(copy_bytes(py, rest)?.unbind());
                    return Ok(());
                }
                let protocol = state.life.protocol.as_ref();
                protocol.is_some_and(|it| it.is(&callee.protocol)) && state.buffered
            };
            if is_same {
                continue;
            }
            let receiver = this.get().receiver(py, &*this.get().state.get()?);
            successor = match receiver {
                Some((next, true)) => Some(next),
                Some((next, false)) => return Self::deliver_to(this, &next, false, &copy_bytes(py, rest)?),
                None => return Ok(()),
            };
        }
        Ok(())
    }

    /// A protocol stopped the loop while a piece was handed over. The rest of the piece comes in the next run, as bytes that are
    /// still in the socket would.
    fn keep(this: &Bound<'_, Self>, error: &PyErr, rest: &[u8]) -> PyResult<()> {
        if rest.is_empty() || !stops_the_loop(this.py(), error) {
            return Ok(());
        }
        let rest = copy_bytes(this.py(), rest)?;
        {
            let mut state = this.get().state.get()?;
            if state.life.phase != Phase::Open {
                return Ok(());
            }
            state.receiving.keep_first(rest.unbind());
        }
        Self::soon(this, name!("_deliver_kept"))
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
            Ok(true) => Ok(()),
            Ok(false) => Self::begin_close(this),
            // The protocol has heard of the end, and is not asked again.
            Err(error) if stops_the_loop(this.py(), &error) => Self::begin_close(this).and(Err(error)),
            Err(error) => Self::fatal(this, error, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    /// After a terminal completion, goes on even if the protocol raised: what stops the loop leaves a connection that the next run
    /// goes on with.
    fn settle_after(this: &Bound<'_, Self>, completion: &Completion, outcome: PyResult<()>) -> PyResult<()> {
        if completion.is_terminal() {
            one_after_other(this.py(), outcome, Self::settle(this))
        } else {
            outcome
        }
    }

    /// No receive is in flight any more: begin the next, or finish closing.
    pub(super) fn settle(this: &Bound<'_, Self>) -> PyResult<()> {
        let phase = this.get().state.get()?.life.phase;
        match phase {
            Phase::Open => {
                Self::receive(this)?;
                Self::leave_if_idle(this)
            }
            Phase::Closing | Phase::Lost => Self::finish_if_idle(this),
            Phase::New | Phase::Closed => Ok(()),
        }
    }
}

#[pymethods]
impl StreamTransport {
    /// Nothing is taken from the socket any more when this returns, so the program may hand the socket on.
    fn pause_reading(&self) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        let mut io = self.scheduler.get().io.get()?;
        let mut state = self.state.get()?;
        if let Some(leaving) = &mut state.leaving {
            leaving.paused = true;
        }
        if state.life.phase >= Phase::Closing || state.receiving.is_paused() {
            return Ok(());
        }
        state.receiving.pause(&mut io);
        if io.driver.acts_between_waits() {
            io.driver.flush().map_err(io_error)?;
        }
        Ok(())
    }

    pub(super) fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        let has_kept = {
            let mut state = slf.get().state.get()?;
            if let Some(leaving) = &mut state.leaving {
                // Nothing is delivered here any more; the other loop will.
                leaving.paused = false;
                return Ok(());
            }
            if state.life.phase >= Phase::Closing || !state.receiving.is_paused() {
                return Ok(());
            }
            state.receiving.resume()
        };
        // Later, because the caller does not expect that its protocol is called within this call.
        if has_kept {
            Self::soon(slf, name!("_deliver_kept"))
        } else {
            Self::receive(slf)
        }
    }

    /// What arrived while reading was paused, in its order.
    #[pyo3(name = "_deliver_kept")]
    pub(super) fn deliver_kept(slf: &Bound<'_, Self>) -> PyResult<()> {
        loop {
            let kept = {
                let mut state = slf.get().state.get()?;
                if state.life.phase != Phase::Open {
                    return Ok(());
                }
                let kept = state.receiving.next_kept();
                kept.map(|piece| (piece, slf.get().receiver(slf.py(), &state)))
            };
            let Some((piece, receiver)) = kept else {
                return Self::receive(slf);
            };
            let outcome = Self::hand_over(slf, receiver, piece);
            if outcome.is_err() {
                // The pieces behind it come in the next run.
                return Self::soon(slf, name!("_deliver_kept")).and(outcome);
            }
        }
    }
}
