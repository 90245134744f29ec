//! The socket and epoll calls that the load generator and the bare servers share. They return `io::Error` instead of
//! -1.
//!
//! They are thin on purpose: one function makes one system call, retries nothing and keeps nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Turns the -1 of a libc call into an error with its `errno`.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `recv(2)`. `Ok(0)` is the end of the stream.
pub(crate) fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `buffer`, which is borrowed mutably for the call.
    check_len(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

/// `send(2)` that reports a closed peer as `EPIPE` instead of killing the process with SIGPIPE.
pub(crate) fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `data`, which is borrowed for the call.
    check_len(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) })
}

/// `accept4(2)`, close-on-exec, with `flags` added.
pub(crate) fn accept(listener: RawFd, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: null address pointers are allowed; the caller does not want the peer's address.
    let fd = check(unsafe {
        libc::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags | libc::SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just created `fd`, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives across the call and `size` is its size.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) }).map(drop)
}

/// Sets TCP_NODELAY, so that small messages are sent at once. An accepted socket inherits the option if its listening
/// socket had it when the handshake ended. Connections that were in the backlog before do not, so set it on accepted
/// sockets too.
pub(crate) fn set_nodelay(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

pub(crate) fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument and accesses no memory.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    let flags = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    // SAFETY: F_SETFL takes an int and accesses no memory.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }).map(drop)
}

/// Whether an error of `accept(2)` means that there are no fds or no memory now, but perhaps later.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// A socket address in the kernel's form.
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    pub(crate) fn new(address: &SocketAddr) -> Self {
        // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let base = &raw mut storage;
        let len = match address {
            SocketAddr::V4(v4) => {
                // SAFETY: all zeroes is a valid sockaddr_in.
                let mut raw: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                raw.sin_family = libc::AF_INET as libc::sa_family_t;
                raw.sin_port = v4.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr type.
                unsafe { base.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                // SAFETY: all zeroes is a valid sockaddr_in6.
                let mut raw: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
                raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                raw.sin6_port = v6.port().to_be();
                raw.sin6_addr.s6_addr = v6.ip().octets();
                raw.sin6_flowinfo = v6.flowinfo();
                raw.sin6_scope_id = v6.scope_id();
                // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr type.
                unsafe { base.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self {
            storage,
            len: len as libc::socklen_t,
        }
    }

    /// The address of a Unix socket. An abstract name begins with a NUL and ends at its length; a path ends with a
    /// NUL (unix(7)).
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        // SAFETY: all zeroes is a valid sockaddr_un.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        if bytes.is_empty() || bytes.len() >= raw.sun_path.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path.iter_mut().zip(bytes) {
            *to = from.cast_signed() as libc::c_char;
        }
        let end = usize::from(bytes[0] != 0);
        let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + end;
        // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        // SAFETY: sockaddr_storage is large enough and aligned for every sockaddr type.
        unsafe { (&raw mut storage).cast::<libc::sockaddr_un>().write(raw) };
        Ok(Self {
            storage,
            len: len as libc::socklen_t,
        })
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }
}

/// Makes a socket of `address`'s family and of this type (`SOCK_STREAM`, ...), close-on-exec, with `flags` added.
pub(crate) fn socket(address: &RawAddress, kind: libc::c_int, flags: libc::c_int) -> io::Result<OwnedFd> {
    let family = libc::c_int::from(address.storage.ss_family);
    // SAFETY: socket(2) takes no pointers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | flags, 0) })?;
    // SAFETY: the kernel has just created `fd`, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `connect(2)`; on a non-blocking socket `EINPROGRESS` is the usual answer.
pub(crate) fn connect(fd: RawFd, address: &RawAddress) -> io::Result<()> {
    // SAFETY: the pointer and the length describe a sockaddr that outlives the call.
    check(unsafe { libc::connect(fd, address.as_ptr(), address.len) }).map(drop)
}

pub(crate) fn bind(fd: RawFd, address: &RawAddress) -> io::Result<()> {
    // SAFETY: the pointer and the length describe a sockaddr that outlives the call.
    check(unsafe { libc::bind(fd, address.as_ptr(), address.len) }).map(drop)
}

/// Takes `SO_ERROR`: the result of a non-blocking connect, or the reason why a connection broke.
pub(crate) fn take_error(fd: RawFd) -> io::Result<()> {
    let mut code: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `code` and `len` are valid and writable for the call.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut code).cast(),
            &mut len,
        )
    })?;
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

/// An epoll instance, and the array that it writes events into.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just created `fd`, and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; batch],
        })
    }

    fn control(&self, what: libc::c_int, fd: RawFd, interest: libc::c_int, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: token,
        };
        // SAFETY: `event` is valid for the call, and the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), what, fd, &mut event) }).map(drop)
    }

    pub(crate) fn add(&self, fd: RawFd, interest: libc::c_int, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest, token)
    }

    pub(crate) fn modify(&self, fd: RawFd, interest: libc::c_int, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, token)
    }

    /// Waits at most `timeout`, with the kernel's full precision (epoll_pwait2, Linux 5.11) or, without that call,
    /// rounded down to milliseconds. A signal that interrupts the wait counts as no events.
    pub(crate) fn wait_precisely(&mut self, timeout: Duration) -> io::Result<usize> {
        let time = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        // SAFETY: the pointer and the length describe `events`, which is borrowed mutably for the call; `time` is
        // only read; there is no signal mask.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                &raw const time,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        match check(ready as libc::c_int) {
            Ok(count) => Ok(count.unsigned_abs() as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                self.wait(libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits at most `timeout_ms`. A signal that interrupts the wait counts as no events.
    pub(crate) fn wait(&mut self, timeout_ms: libc::c_int) -> io::Result<usize> {
        let room = libc::c_int::try_from(self.events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the pointer and `room` describe `events`, which is borrowed mutably for the call.
        let ready =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms) };
        match check(ready) {
            Ok(count) => Ok(count.unsigned_abs() as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Event number `index` of the last [`wait`](Self::wait): its token and what happened.
    pub(crate) fn event(&self, index: usize) -> (u64, libc::c_int) {
        let event = self.events[index];
        (event.u64, event.events as libc::c_int)
    }
}
