//! The sending side of a stream transport: what is queued, and which op is in flight for it.
//!
//! ```text
//!             write: the socket takes no more            completion, something is queued
//!            ┌───────────────────────────────> Bytes ───────┐
//!            │                                   │ ▲ <──────┘
//!   Nothing ─┤ <─────────────────────────────────┘ │
//!            │     completion, all is sent         │ completion, something was queued since the file was given up
//!            │                                     │
//!            └───────────────────────────────> Room ────────┐
//!              a file: the socket has no room    ▲ <────────┘ completion, and the next piece of the file finds no room
//! ```
//!
//! In `Bytes` the kernel reads the chunks at the front of the outbox, so nothing changes them. In the other states the outbox may be
//! sent from directly; in `Nothing` it is empty. A file begins when the outbox is empty, and the transport takes no writes until
//! the file has ended. `eof` comes after both.

use std::num::NonZero;
use std::os::fd::RawFd;

use proact_driver::{Op, Token, ops};
use pyo3::prelude::*;

use super::file::sending::{FileSending, FileToSend};
use super::outbox::Outbox;
use super::send::SENDS;
use super::stream::StreamTransport;
use crate::reactor::io::{Io, Sent};
use crate::reactor::target::Target;

#[derive(Clone, Copy)]
enum Flight {
    Nothing,
    /// A send of what is queued.
    Bytes(NonZero<Token>),
    /// A poll: the file waits for room.
    Room(NonZero<Token>),
}

pub(super) struct Sending {
    pub out: Outbox,
    flight: Flight,
    /// A file that is being sent, or waits for what was written before it.
    pub file: Option<Box<FileToSend>>,
    /// Our side ends once everything is sent.
    pub eof: bool,
}

impl Default for Sending {
    fn default() -> Sending {
        Sending {
            out: Outbox::default(),
            flight: Flight::Nothing,
            file: None,
            eof: false,
        }
    }
}

impl Sending {
    pub fn is_idle(&self) -> bool {
        matches!(self.flight, Flight::Nothing)
    }

    /// Whether what is written now may go to the socket at once: nothing is before it.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.out.is_empty() && !matches!(self.flight, Flight::Bytes(_))
    }

    /// Whether everything is sent: a file may send its next piece.
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.out.is_empty()
    }

    /// Sends what is queued, where no send is in flight, as far as the socket takes it: 0, or the error that ends the
    /// connection.
    pub fn send_queued(&mut self, py: Python<'_>, fd: RawFd, io: &mut Io) -> i32 {
        self.out.flush(py, &mut *io.driver, |out, py| out.op(py, fd))
    }

    /// Hands what is queued to the engine, unless something is in flight, after which it is handed over: 0, or the error
    /// that ends the connection.
    pub fn submit_queued(&mut self, this: &Bound<'_, StreamTransport>, fd: RawFd, io: &mut Io) -> i32 {
        while self.is_idle() && !self.out.is_empty() {
            let Some(op) = self.out.op(this.py(), fd) else {
                break;
            };
            // SAFETY: the chunks and the message belong to the outbox, which the slot's reference to the transport
            // keeps; they stay put in `Bytes`.
            match unsafe { io.submit(op, Target::new(this.clone().unbind(), &SENDS)) } {
                Sent::Pending(token) => {
                    self.flight = NonZero::new(token).map_or(Flight::Nothing, Flight::Bytes)
                }
                Sent::Ready(error) if error < 0 => return error,
                Sent::Ready(count) => self.out.sent(this.py(), count as usize),
            }
        }
        0
    }

    /// Waits until the socket has room for the file: 0, or the error that ends it.
    pub fn wait_for_room(&mut self, this: &Bound<'_, StreamTransport>, fd: RawFd, io: &mut Io) -> i32 {
        let events = libc::POLLOUT as u32;
        // SAFETY: a poll points at no memory.
        match unsafe {
            io.submit(
                Op::Poll(ops::Poll { fd, events }),
                Target::new(this.clone().unbind(), &SENDS),
            )
        } {
            Sent::Pending(token) => {
                self.flight = NonZero::new(token).map_or(Flight::Nothing, Flight::Room);
                0
            }
            Sent::Ready(error) => error,
        }
    }

    /// The op in flight is over: 0, or the error that ends the connection.
    pub fn completed(&mut self, py: Python<'_>, result: i32) -> i32 {
        match std::mem::replace(&mut self.flight, Flight::Nothing) {
            Flight::Bytes(_) if result < 0 => result,
            Flight::Bytes(_) => {
                self.out.sent(py, result as usize);
                0
            }
            // If the socket has an error, the next piece meets it.
            Flight::Room(_) | Flight::Nothing => 0,
        }
    }

    /// Ends this sending of a file if it still goes on. Another one that has begun since goes on.
    pub fn give_up_file(&mut self, of: &Bound<'_, FileSending>, io: &mut Io) -> Option<Box<FileToSend>> {
        let ended = self.file.take_if(|file| file.of.is(of));
        if ended.is_some()
            && let Flight::Room(token) = self.flight
        {
            io.cancel(token.get());
        }
        ended
    }

    /// The connection is lost: sends what the socket takes at once, unless the kernel still reads the chunks.
    pub fn cut(&mut self, py: Python<'_>, fd: RawFd, io: &mut Io) {
        let ours = match self.flight {
            Flight::Nothing => false,
            Flight::Bytes(token) => {
                io.cancel(token.get()) || {
                    stop_worker(fd, io);
                    false
                }
            }
            Flight::Room(token) => {
                io.cancel(token.get());
                true
            }
        };
        if ours {
            self.send_queued(py, fd, io);
        }
    }
}

/// A worker thread of a ring may be in the middle of the send: the kernel hands one to it if the peer ends its side while the send
/// waits for room. There a cancel only interrupts the wait: if some bytes went out before, `MSG_WAITALL` has the worker wait
/// again, for a peer that may never read. The end of our side is final, and the close that follows would bring it anyway.
fn stop_worker(fd: RawFd, io: &mut Io) {
    let how = libc::SHUT_WR;
    // SAFETY: a shutdown points at no memory.
    unsafe { io.driver.attempt(&Op::Shutdown(ops::Shutdown { fd, how })) };
}
