//! Blocking I/O's ceiling: a thread for each connection, which does nothing but `recv` and `send`.
//!
//! There is no list of connections to close at the end: every socket has a receive and a send timeout of one
//! tick, so that a thread without work looks at `stop` by itself. A connection under load never meets the
//! timeout.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{BULK, Session, TICK};
use crate::sockets;

/// The servers' threads need the buffer on the heap and little else.
const STACK: usize = 64 * 1024;

/// Serves `S` on `listener` with blocking calls and a thread for each connection, until `stop` is set.
/// Returns when every thread has ended, which takes one tick (50 ms).
///
/// # Errors
/// When the listening socket breaks; what happens to one connection only closes that connection.
pub fn serve_threads<S: Session>(listener: OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    // Non-blocking, so that a peer which is gone again between poll and accept cannot hold us; what is
    // accepted still blocks.
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
                    // No thread to be had: the connection is dropped, which tells the peer at once.
                    drop(
                        thread::Builder::new()
                            .stack_size(STACK)
                            .spawn_scoped(scope, move || {
                                // How one connection ends is its peer's affair.
                                let _ = serve::<S>(&connection, stop);
                            }),
                    );
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted || is_timeout(&error) => {}
                Err(error) if sockets::is_exhausted(&error) => thread::sleep(TICK),
                Err(error) => {
                    // The scope waits for the others: tell them.
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    })
}

/// Waits one tick for a connection.
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
