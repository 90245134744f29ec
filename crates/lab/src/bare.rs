//! The ceilings: the smallest correct servers, of echo and of HTTP, directly on Linux.
//!
//! proact's loop is measured against these. Each server serves the listening socket that it is given, on the calling
//! thread, until `stop` is set (it checks at least twenty times per second). It answers every byte in order, and
//! holds a bounded amount of memory for a connection that sends without reading. The servers differ in the I/O model,
//! and are alike in everything else that can be alike.

mod epoll;
mod session;
mod threads;
mod uring;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use crate::sockets::{self, RawAddress, check};

pub use epoll::serve_epoll;
pub use session::{Echo, Session, Web};
pub use threads::serve_threads;
pub use uring::serve_uring;

/// How often an idle server checks its `stop` flag.
const TICK: Duration = Duration::from_millis(50);

/// The maximum size of one receive of a bulk transfer. Large enough that a 64 KiB message is one copy; small enough
/// for the L2 cache.
const BULK: usize = 256 * 1024;

/// Makes a listening TCP socket (`SO_REUSEADDR`, a backlog of 4,096 or what `net.core.somaxconn` allows) for one of
/// the servers. With port 0 the kernel chooses the port; [`std::net::TcpListener::from`] tells which.
///
/// # Errors
/// The errors of `socket(2)`, `bind(2)` (`EADDRINUSE`, ...) and `listen(2)`.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let address = RawAddress::new(&address);
    let listener = sockets::socket(&address, libc::SOCK_STREAM, 0)?;
    let fd = listener.as_raw_fd();
    sockets::set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // Set the option before any client can connect: an accepted socket inherits the options that the listening socket
    // had when the handshake ended.
    sockets::set_nodelay(fd)?;
    sockets::bind(fd, &address)?;
    // SAFETY: listen(2) takes no pointers.
    check(unsafe { libc::listen(fd, 4096) })?;
    Ok(listener)
}
