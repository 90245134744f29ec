//! One connection of the load: a message out, its answer back, byte by byte the right one.
//!
//! Knows sockets and scripts; does not know time windows, histograms or other connections. One system call
//! for each step, so that with many connections none keeps the thread to itself; epoll is level-triggered and
//! comes back for the rest.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use super::LoadError;
use super::payload::Script;
use crate::sockets;

/// What a step on a connection led to.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The socket had nothing, or took nothing.
    Blocked,
    /// Bytes moved; the message is still under way.
    Moved,
    /// The last byte of the message went out, or its last byte came back.
    Complete,
}

pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) id: usize,
    /// Number of the message that is under way.
    pub(crate) message: u64,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// When the message was begun.
    pub(crate) began: Instant,
    /// When a byte last moved, in turns of the load's coarse clock.
    pub(crate) moved: Instant,
    /// Interest in writing is registered with epoll.
    pub(crate) writing: bool,
    /// A message is under way.
    pub(crate) busy: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, id: usize, now: Instant) -> Self {
        Self {
            socket,
            id,
            message: 0,
            sent: 0,
            received: 0,
            began: now,
            moved: now,
            writing: false,
            busy: false,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Turns to the next message.
    pub(crate) fn next(&mut self) {
        self.message += 1;
        self.sent = 0;
        self.received = 0;
    }

    /// One `send` of what is left of the message.
    pub(crate) fn send(&mut self, script: &Script) -> Result<Step, LoadError> {
        let rest = &script.request(self.id, self.message)[self.sent..];
        match sockets::send(self.fd(), rest) {
            Ok(count) => {
                self.sent += count;
                Ok(if count == rest.len() {
                    Step::Complete
                } else {
                    Step::Moved
                })
            }
            Err(error) => self.failed(error, "send"),
        }
    }

    /// One `recv`, verified against the message. It asks for more than is due, so that bytes which nobody
    /// sent are caught too.
    pub(crate) fn receive(&mut self, script: &Script, buffer: &mut [u8]) -> Result<Step, LoadError> {
        let count = match sockets::recv(self.fd(), buffer) {
            Ok(0) => {
                let (connection, message, offset) = (self.id, self.message, self.received);
                return Err(LoadError::Closed {
                    connection,
                    message,
                    offset,
                });
            }
            Ok(count) => count,
            Err(error) => return self.failed(error, "recv"),
        };
        self.verify(script, &buffer[..count])?;
        self.received += count;
        Ok(if self.received == script.size() {
            Step::Complete
        } else {
            Step::Moved
        })
    }

    /// What comes back has to continue the answer, and cannot be ahead of what went out.
    fn verify(&self, script: &Script, got: &[u8]) -> Result<(), LoadError> {
        let request = script.request(self.id, self.message);
        let due = &script.response(request)[self.received..script.due(self.sent)];
        if due.get(..got.len()) == Some(got) {
            return Ok(());
        }
        let at = got
            .iter()
            .zip(due)
            .position(|(got, sent)| got != sent)
            .unwrap_or(due.len().min(got.len()));
        Err(LoadError::Mismatch {
            connection: self.id,
            message: self.message,
            offset: self.received + at,
            expected: due.get(at).copied(),
            got: got.get(at).copied().unwrap_or_default(),
        })
    }

    fn failed(&self, error: io::Error, doing: &'static str) -> Result<Step, LoadError> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Step::Blocked),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(LoadError::Reset {
                connection: self.id,
                message: self.message,
            }),
            _ => Err(LoadError::Io { doing, source: error }),
        }
    }

    pub(crate) fn stalled(&self) -> LoadError {
        LoadError::Stall {
            connection: self.id,
            message: self.message,
            sent: self.sent,
            received: self.received,
        }
    }
}
