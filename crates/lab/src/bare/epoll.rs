//! The ceiling of a reactor: level-triggered epoll, one thread, one buffer for all connections.
//!
//! A readable connection costs one `recv` and one `send`; a turn costs one `epoll_wait`. The server registers
//! interest in writing only when `send` could not take everything, and does not read until the rest is sent: that is
//! the whole flow control.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BULK, Session, TICK};
use crate::sockets::{self, Epoll};

/// The token of the listening socket. The token of a connection is its fd.
const LISTENER: u64 = u64::MAX;

struct Server<S> {
    epoll: Epoll,
    listener: OwnedFd,
    /// The process has no fds left, so the server accepts no connections until one ends.
    paused: bool,
    connections: HashMap<RawFd, OwnedFd>,
    /// Indexed by fd.
    sessions: Vec<S>,
    /// The bytes that `send` did not take, and how many of them have been sent since. Only for connections that wait
    /// to write.
    unsent: HashMap<RawFd, (Vec<u8>, usize)>,
    buffer: Box<[u8]>,
}

/// Serves `S` on `listener` with epoll, on the calling thread, until `stop` is set.
///
/// # Errors
/// Errors of epoll itself and of the listening socket. An error of one connection only closes that connection.
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
                // The peer had gone before the accept: this is no error of the listening socket.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if sockets::is_exhausted(&error) => {
                    // Level-triggered interest would spin here. Try again once a connection has closed.
                    self.paused = true;
                    return self.epoll.modify(self.listener.as_raw_fd(), 0, LISTENER);
                }
                Err(error) => return Err(error),
            };
            let fd = connection.as_raw_fd();
            // The connection may have been in the backlog before the listening socket had the option. If the peer has
            // gone, the next read shows it.
            drop(sockets::set_nodelay(fd));
            self.epoll.add(fd, libc::EPOLLIN, fd as u64)?;
            self.connections.insert(fd, connection);
            if self.sessions.len() <= fd as usize {
                self.sessions.resize_with(fd as usize + 1, S::default);
            }
            self.sessions[fd as usize] = S::default();
        }
    }

    /// Serves one readable or writable connection. An error, which includes the end of the stream, tells the caller
    /// to close it.
    fn serve(&mut self, fd: RawFd, events: libc::c_int) -> io::Result<()> {
        // Usually no connection waits to write, and then this needs no lookup.
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

    /// Sends more of the unsent bytes. Once all are sent, the connection is read again.
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

    /// Called when everything has been sent. Returns an error if the session is over.
    fn go_on(&self, fd: RawFd) -> io::Result<()> {
        if self.sessions[fd as usize].is_over() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn close(&mut self, fd: RawFd) -> io::Result<()> {
        self.unsent.remove(&fd);
        // Closing the fd also removes it from the epoll set, because it has no duplicate.
        self.connections.remove(&fd);
        if std::mem::take(&mut self.paused) {
            self.epoll
                .modify(self.listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
        }
        Ok(())
    }
}

/// How many bytes `send` took; 0 if the socket is full.
fn sent_now(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    match sockets::send(fd, data) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        answer => answer,
    }
}
