//! The ceiling of blocking I/O: a thread for each connection, which only calls `recv` and `send`.
//!
//! The server needs no list of connections to close at the end: every socket has a receive and a send timeout of one
//! tick, so an idle thread checks `stop` by itself. A connection under load never reaches the timeout.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{BULK, Session, TICK};
use crate::sockets;

/// The threads' buffer is on the heap, and they need little else.
const STACK: usize = 64 * 1024;

/// Serves `S` on `listener` with blocking calls and a thread for each connection, until `stop` is set.
/// Returns when every thread has ended, which takes one tick (50 ms).
///
/// # Errors
/// Errors of the listening socket. An error of one connection only closes that connection.
pub fn serve_threads<S: Session>(listener: OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    // Non-blocking, so that accept does not block if the peer has gone since the poll. Accepted sockets still block.
    sockets::set_nonblocking(listener.as_raw_fd(), true)?;
    sockets::set_nodelay(listener.as_raw_fd())?;
    let listener = TcpListener::from(listener);
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match readable(&listener).and_then(|ready| {
                if ready {
                    listener.accept().map(Some)
                } else {
                    Ok(None)
                }
            }) {
                Ok(Some((connection, _))) => {
                    // If no thread can be started, the connection is dropped, which tells the peer at once.
                    drop(
                        thread::Builder::new()
                            .stack_size(STACK)
                            .spawn_scoped(scope, move || {
                                // An error of one connection concerns only its peer.
                                let _ = serve::<S>(&connection, stop);
                            }),
                    );
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted || is_timeout(&error) => {}
                Err(error) if sockets::is_exhausted(&error) => thread::sleep(TICK),
                Err(error) => {
                    // The scope waits for the other threads, so tell them to stop.
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    })
}

/// Waits up to one tick for a connection.
fn readable(listener: &TcpListener) -> io::Result<bool> {
    let mut entry = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = libc::c_int::try_from(TICK.as_millis()).unwrap_or(50);
    // SAFETY: `entry` is one valid pollfd for the call.
    Ok(sockets::check(unsafe { libc::poll(&mut entry, 1, timeout) })? > 0)
}

fn serve<S: Session>(connection: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(TICK))?;
    connection.set_write_timeout(Some(TICK))?;
    let fd = connection.as_raw_fd();
    let mut buffer = vec![0; BULK];
    let mut session = S::default();
    while !stop.load(Ordering::Relaxed) {
        let received = match sockets::recv(fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(received) => received,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        let reply = session.feed(&buffer[..received]);
        let mut sent = 0;
        while sent < reply.len() && !stop.load(Ordering::Relaxed) {
            match sockets::send(fd, &reply[sent..]) {
                Ok(count) => sent += count,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if session.is_over() {
            return Ok(());
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
