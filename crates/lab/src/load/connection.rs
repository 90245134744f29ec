//! One connection of the load: sends a message and verifies its answer byte by byte.
//!
//! This file knows sockets, TLS and scripts, but no time windows, histograms or other connections. Each step makes one
//! system call, so that no connection keeps the thread to itself; epoll is level-triggered and reports the connection
//! again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use super::LoadError;
use super::payload::Script;
use super::tls::Session;
use crate::sockets;

/// The outcome of a step of a connection.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The socket had no bytes, or took none.
    Blocked,
    /// Bytes moved, but the message or its answer is not complete.
    Moved,
    /// The last byte of the message was sent, or the last byte of its answer has arrived.
    Complete,
}

pub(crate) struct Connection {
    /// Over the socket, which it must not outlive.
    tls: Option<Session>,
    pub(crate) socket: OwnedFd,
    pub(crate) id: usize,
    /// The number of the current message.
    pub(crate) message: u64,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// When the message was begun.
    pub(crate) began: Instant,
    /// When a byte last moved, by a clock that the load reads once per turn.
    pub(crate) moved: Instant,
    /// Interest in writing is registered with epoll.
    pub(crate) writing: bool,
    /// The message has no complete answer yet.
    pub(crate) busy: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, tls: Option<Session>, id: usize, now: Instant) -> Self {
        Self {
            tls,
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

    /// Makes one `send` of the rest of the message.
    pub(crate) fn send(&mut self, script: &Script) -> Result<Step, LoadError> {
        let rest = &script.request(self.id, self.message)[self.sent..];
        let sent = match &self.tls {
            None => sockets::send(self.fd(), rest),
            Some(session) => session.send(rest),
        };
        match sent {
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

    /// Makes one `recv` and verifies the bytes. It asks for more bytes than are due, so that bytes too many are found
    /// as well.
    pub(crate) fn receive(&mut self, script: &Script, buffer: &mut [u8]) -> Result<Step, LoadError> {
        let received = match &self.tls {
            None => sockets::recv(self.fd(), buffer),
            Some(session) => session.recv(buffer),
        };
        let count = match received {
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

    /// Checks that the bytes continue the answer, and that they are not ahead of the bytes that were sent.
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
