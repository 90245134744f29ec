//! The reactor's ceiling: level-triggered epoll, one thread, one buffer for all connections.
//!
//! A readable connection costs one `recv` and one `send`; a turn costs one `epoll_wait`. Interest in writing
//! is registered only when `send` could not take everything, and reading pauses until the rest is gone: that
//! is the whole flow control.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BULK, Session, TICK};
use crate::sockets::{self, Epoll};

/// The token of the listening socket; the others are their own fd.
const LISTENER: u64 = u64::MAX;

struct Server<S> {
    epoll: Epoll,
    listener: OwnedFd,
    /// Accepting has stopped for want of descriptors, until a connection ends.
    paused: bool,
    connections: HashMap<RawFd, OwnedFd>,
    /// By fd.
    sessions: Vec<S>,
    /// What `send` did not take, and how much of it has gone since. Only for connections that wait to write.
    unsent: HashMap<RawFd, (Vec<u8>, usize)>,
    buffer: Box<[u8]>,
}

/// Serves `S` on `listener` with epoll, on the calling thread, until `stop` is set.
///
/// # Errors
/// When epoll itself fails or the listening socket breaks; what happens to one connection only closes that
/// connection.
pub fn serve_epoll<S: Session>(listener: OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    let fd = listener.as_raw_fd();
    sockets::set_nonblocking(fd, true)?;
    sockets::set_nodelay(fd)?;
    let epoll = Epoll::new(1024)?;
    epoll.add(fd, libc::EPOLLIN, LISTENER)?;
    let mut server = Server::<S> {
        epoll,
        listener,
        paused: false,
        connections: HashMap::new(),
        sessions: Vec::new(),
        unsent: HashMap::new(),
        buffer: vec![0; BULK].into_boxed_slice(),
    };
    let timeout = libc::c_int::try_from(TICK.as_millis()).unwrap_or(50);
    while !stop.load(Ordering::Relaxed) {
        let ready = server.epoll.wait(timeout)?;
        for index in 0..ready {
            let (token, events) = server.epoll.event(index);
            if token == LISTENER {
                server.accept()?;
            } else if server.serve(token as RawFd, events).is_err() {
                server.close(token as RawFd)?;
            }
        }
    }
    Ok(())
}

impl<S: Session> Server<S> {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let connection = match sockets::accept(self.listener.as_raw_fd(), libc::SOCK_NONBLOCK) {
                Ok(connection) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer was gone before we came: not an error of the listener.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if sockets::is_exhausted(&error) => {
                    // Level-triggered interest would spin here; look again once a descriptor has been freed.
                    self.paused = true;
                    return self.epoll.modify(self.listener.as_raw_fd(), 0, LISTENER);
                }
                Err(error) => return Err(error),
            };
            let fd = connection.as_raw_fd();
            // It may have been in the backlog before the listening socket had the option. A peer that is gone
            // already is noticed when it is read from.
            drop(sockets::set_nodelay(fd));
            self.epoll.add(fd, libc::EPOLLIN, fd as u64)?;
            self.connections.insert(fd, connection);
            if self.sessions.len() <= fd as usize {
                self.sessions.resize_with(fd as usize + 1, S::default);
            }
            self.sessions[fd as usize] = S::default();
        }
    }

    /// One readable or writable connection. An error, or the end of the stream, means that it is to be
    /// closed.
    fn serve(&mut self, fd: RawFd, events: libc::c_int) -> io::Result<()> {
        // No lookup in the usual case, in which nobody waits to write.
        if !self.unsent.is_empty() && self.unsent.contains_key(&fd) {
            return self.flush(fd);
        }
        if events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) == 0 {
            return Ok(());
        }
        let received = match sockets::recv(fd, &mut self.buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let session = &mut self.sessions[fd as usize];
        let reply = session.feed(&self.buffer[..received]);
        let sent = if reply.is_empty() { 0 } else { sent_now(fd, reply)? };
        if sent < reply.len() {
            self.unsent.insert(fd, (reply[sent..].to_vec(), 0));
            return self.epoll.modify(fd, libc::EPOLLOUT, fd as u64);
        }
        self.go_on(fd)
    }

    /// Sends more of what was left over; once all has gone the connection is read again.
    fn flush(&mut self, fd: RawFd) -> io::Result<()> {
        let Some((data, done)) = self.unsent.get_mut(&fd) else {
            return Ok(());
        };
        *done += sent_now(fd, &data[*done..])?;
        if *done == data.len() {
            self.unsent.remove(&fd);
            self.epoll.modify(fd, libc::EPOLLIN, fd as u64)?;
            return self.go_on(fd);
        }
        Ok(())
    }

    /// Everything has been sent: an error if that was the end.
    fn go_on(&self, fd: RawFd) -> io::Result<()> {
        if self.sessions[fd as usize].is_over() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        self.unsent.remove(&fd);
        // Closing takes it out of the epoll set too: nobody holds a duplicate of it.
        self.connections.remove(&fd);
        if std::mem::take(&mut self.paused) {
            self.epoll
                .modify(self.listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
        }
        Ok(())
    }
}

/// How much `send` took; nothing when the socket is full.
fn sent_now(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    match sockets::send(fd, data) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        answer => answer,
    }
}
