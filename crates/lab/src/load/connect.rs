//! Opens the connections: non-blocking, a few at a time. Either all are opened or there is an error that says why
//! not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{LoadError, LoadSpec, TICK_MS, Target};
use crate::sockets::{self, Epoll, RawAddress};

/// How many handshakes may be unfinished at a time. This is fewer than the smallest usual backlog (asyncio's is 100),
/// because a handshake that finds the backlog full waits a second for its retransmission.
const AT_ONCE: usize = 64;

/// How many fds are left for the rest of the process.
const SPARE: usize = 16;

/// Begins connections to the target.
pub(crate) struct Opener {
    address: RawAddress,
    kind: libc::c_int,
    nodelay: bool,
}

impl Opener {
    pub(crate) fn new(target: &Target) -> io::Result<Self> {
        let (address, kind) = match target {
            Target::Tcp(addr) => (RawAddress::new(addr), libc::SOCK_STREAM),
            Target::Udp(addr) => (RawAddress::new(addr), libc::SOCK_DGRAM),
            Target::Unix(path) => (RawAddress::unix(path)?, libc::SOCK_STREAM),
        };
        let nodelay = matches!(target, Target::Tcp(_));
        Ok(Self {
            address,
            kind,
            nodelay,
        })
    }

    /// Makes a socket and begins to connect it. Also returns whether the connect is still unfinished.
    pub(crate) fn open(&self) -> io::Result<(OwnedFd, bool)> {
        let socket = sockets::socket(&self.address, self.kind, libc::SOCK_NONBLOCK)?;
        let fd = socket.as_raw_fd();
        if self.nodelay {
            sockets::set_nodelay(fd)?;
        }
        match sockets::connect(fd, &self.address) {
            Ok(()) => Ok((socket, false)),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket, true)),
            Err(error) => Err(error),
        }
    }
}

/// Opens all connections in this order: the usual ones, the slow ones, the idle ones. None of them is registered with
/// an epoll set that outlives this function.
pub(crate) fn connect_all(spec: &LoadSpec, stop: &AtomicBool) -> Result<Vec<OwnedFd>, LoadError> {
    let wanted = spec.opened();
    check_limit(wanted)?;
    let opener = Opener::new(&spec.target).map_err(LoadError::io("the server's address"))?;
    let deadline = Instant::now() + spec.connect_timeout;
    let mut epoll = Epoll::new(AT_ONCE).map_err(LoadError::io("epoll_create1"))?;
    let mut connected = Vec::with_capacity(wanted);
    let mut waiting: HashMap<u64, OwnedFd> = HashMap::with_capacity(AT_ONCE);
    while connected.len() < wanted {
        while waiting.len() < AT_ONCE && connected.len() + waiting.len() < wanted {
            match opener.open() {
                Ok((socket, false)) => connected.push(socket),
                Ok((socket, true)) => {
                    let fd = socket.as_raw_fd();
                    epoll
                        .add(fd, libc::EPOLLOUT | libc::EPOLLONESHOT, fd as u64)
                        .map_err(LoadError::io("epoll_ctl"))?;
                    waiting.insert(fd as u64, socket);
                }
                // The backlog of a Unix socket is full, and no event tells when there is room (connect(2), `EAGAIN`).
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    std::thread::sleep(Duration::from_millis(1));
                    break;
                }
                Err(error) => return Err(failure(error, spec, connected.len(), wanted)),
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
            // EPOLLONESHOT has disabled the fd in this set, which ends with the function. The load uses another set.
            connected.push(socket);
        }
    }
    Ok(connected)
}

pub(crate) fn failure(error: io::Error, spec: &LoadSpec, connected: usize, wanted: usize) -> LoadError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => LoadError::Refused(spec.target.clone()),
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

/// Reports too low a limit before the first connection, not after the last one that fits.
fn check_limit(wanted: usize) -> Result<(), LoadError> {
    let limit = file_limit();
    if limit != 0 && wanted.saturating_add(SPARE) as u64 > limit {
        return Err(LoadError::TooManyFiles { wanted, limit });
    }
    Ok(())
}
