//! Opening the connections: non-blocking, a few at a time, all of them or an error that says why not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{LoadError, LoadSpec, TICK_MS};
use crate::sockets::{self, Epoll, RawAddress};

/// Handshakes under way at once. Fewer than the smallest usual backlog (asyncio's is 100): a handshake that
/// finds the backlog full waits a second for its retransmission.
const AT_ONCE: usize = 64;

/// Descriptors that the rest of the process may need meanwhile.
const SPARE: usize = 16;

/// Opens `spec.connections + spec.idle` connections, in order. They are not registered with any epoll that
/// lives on.
pub(crate) fn connect_all(spec: &LoadSpec, stop: &AtomicBool) -> Result<Vec<OwnedFd>, LoadError> {
    let wanted = spec.connections.saturating_add(spec.idle);
    check_limit(wanted)?;
    let address = RawAddress::new(&spec.addr);
    let deadline = Instant::now() + spec.connect_timeout;
    let mut epoll = Epoll::new(AT_ONCE).map_err(LoadError::io("epoll_create1"))?;
    let mut connected = Vec::with_capacity(wanted);
    let mut waiting: HashMap<u64, OwnedFd> = HashMap::with_capacity(AT_ONCE);
    while connected.len() < wanted {
        while waiting.len() < AT_ONCE && connected.len() + waiting.len() < wanted {
            let fail = |error| failure(error, spec, connected.len(), wanted);
            let socket = sockets::tcp_socket(&spec.addr, libc::SOCK_NONBLOCK).map_err(fail)?;
            let fd = socket.as_raw_fd();
            sockets::set_nodelay(fd).map_err(LoadError::io("TCP_NODELAY"))?;
            match sockets::connect(fd, &address) {
                Ok(()) => connected.push(socket),
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    epoll
                        .add(fd, libc::EPOLLOUT | libc::EPOLLONESHOT, fd as u64)
                        .map_err(LoadError::io("epoll_ctl"))?;
                    waiting.insert(fd as u64, socket);
                }
                Err(error) => return Err(fail(error)),
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Err(LoadError::Stopped);
        }
        if Instant::now() >= deadline {
            return Err(LoadError::ConnectTimeout {
                connected: connected.len(),
                wanted,
            });
        }
        if waiting.is_empty() {
            continue;
        }
        for index in 0..epoll.wait(TICK_MS).map_err(LoadError::io("epoll_wait"))? {
            let (token, _) = epoll.event(index);
            let Some(socket) = waiting.remove(&token) else {
                continue;
            };
            sockets::take_error(socket.as_raw_fd())
                .map_err(|error| failure(error, spec, connected.len(), wanted))?;
            // EPOLLONESHOT has silenced it here; the load has an epoll of its own, and this one ends with the
            // function.
            connected.push(socket);
        }
    }
    Ok(connected)
}

fn failure(error: io::Error, spec: &LoadSpec, connected: usize, wanted: usize) -> LoadError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => LoadError::Refused(spec.addr),
        Some(libc::EADDRNOTAVAIL) => LoadError::NoPorts { connected, wanted },
        Some(libc::EMFILE | libc::ENFILE) => LoadError::TooManyFiles {
            wanted,
            limit: file_limit(),
        },
        Some(libc::ETIMEDOUT) => LoadError::ConnectTimeout { connected, wanted },
        Some(libc::ECONNRESET) => LoadError::Reset {
            connection: connected,
            message: 0,
        },
        _ => LoadError::Io {
            doing: "connect",
            source: error,
        },
    }
}

fn file_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid and writable for the call; on failure it stays zero.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}

/// Says it before the first connection, not after the last that fits.
fn check_limit(wanted: usize) -> Result<(), LoadError> {
    let limit = file_limit();
    if limit != 0 && wanted.saturating_add(SPARE) as u64 > limit {
        return Err(LoadError::TooManyFiles { wanted, limit });
    }
    Ok(())
}
