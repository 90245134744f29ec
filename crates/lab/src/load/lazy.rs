//! Clients that send more than they read: the server must keep the difference, or stop reading.
//!
//! They have no events: a turn every some milliseconds sends and reads what their rates allow by then, without
//! waiting. Each byte that they read is verified, as those of the others.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::LoadError;
use super::payload::Payload;
use crate::sockets;

/// Bytes per second that a lazy client offers to the server.
const OFFERS: f64 = 32.0 * 1024.0 * 1024.0;

/// A lazy client sends no more while so many bytes have not come back, so that the memory of a server that takes
/// everything stays bounded.
const AHEAD: u64 = 32 * 1024 * 1024;

/// The room of its socket in bytes: little, so that the kernel does not read in its place.
const ROOM: libc::c_int = 16 * 1024;

/// A client that reads slowly.
pub(crate) struct Lazy {
    socket: OwnedFd,
    id: usize,
    since: Instant,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Bytes that it reads per second.
    reads: f64,
}

impl Lazy {
    pub(crate) fn new(socket: OwnedFd, id: usize, reads: f64, now: Instant) -> Result<Self, LoadError> {
        sockets::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM)
            .map_err(LoadError::io("SO_RCVBUF"))?;
        Ok(Self {
            socket,
            id,
            since: now,
            sent: 0,
            received: 0,
            reads,
        })
    }

    /// Sends and reads what is due.
    pub(crate) fn turn(
        &mut self,
        payload: &Payload,
        now: Instant,
        buffer: &mut [u8],
    ) -> Result<(), LoadError> {
        let seconds = (now - self.since).as_secs_f64();
        self.read(payload, (seconds * self.reads) as u64, buffer)?;
        self.send(payload, ((seconds * OFFERS) as u64).min(self.received + AHEAD))
    }

    fn send(&mut self, payload: &Payload, due: u64) -> Result<(), LoadError> {
        while self.sent < due {
            let rest = payload.stream(self.id, self.sent);
            let left = usize::try_from(due - self.sent).unwrap_or(usize::MAX);
            match sockets::send(self.socket.as_raw_fd(), &rest[..rest.len().min(left)]) {
                Ok(count) => self.sent += count as u64,
                Err(error) => return self.failed(error, "send"),
            }
        }
        Ok(())
    }

    fn read(&mut self, payload: &Payload, due: u64, buffer: &mut [u8]) -> Result<(), LoadError> {
        while self.received < due {
            let left = usize::try_from(due - self.received).unwrap_or(usize::MAX);
            let room = left.min(buffer.len());
            let count = match sockets::recv(self.socket.as_raw_fd(), &mut buffer[..room]) {
                Ok(0) => {
                    return Err(LoadError::Closed {
                        connection: self.id,
                        message: self.received / payload.size() as u64,
                        offset: 0,
                    });
                }
                Ok(count) => count,
                Err(error) => return self.failed(error, "recv"),
            };
            self.verify(payload, &buffer[..count])?;
            self.received += count as u64;
        }
        Ok(())
    }

    /// Checks that the bytes continue the stream.
    fn verify(&self, payload: &Payload, got: &[u8]) -> Result<(), LoadError> {
        let mut at = 0;
        while at < got.len() {
            let place = self.received + at as u64;
            let due = payload.stream(self.id, place);
            let part = &got[at..got.len().min(at + due.len())];
            if let Some(wrong) = part.iter().zip(due).position(|(got, due)| got != due) {
                return Err(LoadError::Mismatch {
                    connection: self.id,
                    message: place / payload.size() as u64,
                    offset: (place % payload.size() as u64) as usize + wrong,
                    expected: due.get(wrong).copied(),
                    got: part[wrong],
                });
            }
            at += part.len();
        }
        Ok(())
    }

    fn failed(&self, error: io::Error, doing: &'static str) -> Result<(), LoadError> {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(LoadError::Reset {
                connection: self.id,
                message: 0,
            }),
            _ => Err(LoadError::Io { doing, source: error }),
        }
    }
}
