//! The system calls that a loop makes beside its ops. None of them waits. They go through [`crate::Driver::call`], so
//! that an engine counts them, and so that an engine that simulates the kernel can answer them.

use std::ffi::CStr;
use std::os::fd::RawFd;

use crate::cached;
use crate::syscalls::{check, file_type, poll_now, retry, socket_error, socket_protocol};

/// One system call. Its result is `-errno` or what the variant says.
pub enum Call<'a> {
    /// Whether the number is an open file: at least 0 if so (`F_GETFD`).
    IsOpen { fd: RawFd },
    /// The type of the file: the type bits of `st_mode` (`S_IFMT`).
    FileType { fd: RawFd },
    /// Puts the file into non-blocking mode.
    SetNonBlocking { fd: RawFd },
    /// Sets `TCP_NODELAY`.
    NoDelay { fd: RawFd },
    /// The pending error of a socket (`SO_ERROR`), as `-errno`.
    SocketError { fd: RawFd },
    /// The protocol of a socket (`SO_PROTOCOL`).
    SocketProtocol { fd: RawFd },
    /// The events out of `events` (`poll(2)`) that the fd has now, and `POLLERR` and `POLLHUP`; `-EAGAIN`: none.
    Poll { fd: RawFd, events: u32 },
    /// Sends a piece of a file on a non-blocking socket without copying it through user memory (`sendfile(2)`). The
    /// result is the count, 0 at the file's end, or `-EAGAIN`.
    SendFile {
        socket: RawFd,
        file: RawFd,
        offset: i64,
        len: usize,
    },
    /// Opens a file if the kernel needs no wait for that: the fd, close-on-exec and in non-blocking mode, or `-EAGAIN`.
    OpenCached { dir: RawFd, path: &'a CStr, flags: i32 },
    /// Gives an open file the flags that it was to be opened with (`F_SETFL`).
    SetFlags { fd: RawFd, flags: i32 },
    /// Writes the status of an open file into `room`. It does not wait.
    Status { fd: RawFd, room: &'a mut libc::statx },
    /// Closes a file that no op uses.
    Close { fd: RawFd },
    /// Writes the socket's own address into `room` and its length into `len`.
    LocalAddress {
        fd: RawFd,
        room: &'a mut libc::sockaddr_storage,
        len: &'a mut libc::socklen_t,
    },
    /// Writes the peer's address, as `LocalAddress` does.
    PeerAddress {
        fd: RawFd,
        room: &'a mut libc::sockaddr_storage,
        len: &'a mut libc::socklen_t,
    },
}

impl Call<'_> {
    /// Makes the call and adds the number of system calls to `calls`.
    pub(crate) fn make(self, calls: &mut u64) -> i32 {
        *calls += 1;
        match self {
            // SAFETY: F_GETFD only reads the fd table.
            Call::IsOpen { fd } => check(i64::from(unsafe { libc::fcntl(fd, libc::F_GETFD) })),
            Call::FileType { fd } => file_type(fd),
            Call::SetNonBlocking { fd } => set_non_blocking(calls, fd),
            Call::NoDelay { fd } => no_delay(fd),
            Call::SocketError { fd } => socket_error(fd),
            Call::SocketProtocol { fd } => socket_protocol(fd),
            Call::Poll { fd, events } => poll_now(fd, events),
            Call::SendFile {
                socket,
                file,
                offset,
                len,
            } => {
                let mut at = offset;
                let len = len.min(0x7fff_f000);
                *calls -= 1;
                retry(calls, || {
                    // SAFETY: a local offset.
                    check(unsafe { libc::sendfile64(socket, file, &raw mut at, len) } as i64)
                })
            }
            Call::OpenCached { dir, path, flags } => {
                *calls -= 1;
                cached::open(calls, dir, path, flags)
            }
            Call::SetFlags { fd, flags } => {
                // SAFETY: the call takes ints.
                check(i64::from(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }))
            }
            Call::Status { fd, room } => {
                let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
                let room = std::ptr::from_mut(room);
                // SAFETY: an empty path, and room for a status.
                check(i64::from(unsafe {
                    crate::by_number::statx(fd, c"".as_ptr(), flags, libc::STATX_BASIC_STATS, room)
                }))
            }
            // SAFETY: the caller owns the fd.
            Call::Close { fd } => check(i64::from(unsafe { libc::close(fd) })),
            // SAFETY: room for any address, with its size.
            Call::LocalAddress { fd, room, len } => check(i64::from(unsafe {
                libc::getsockname(fd, std::ptr::from_mut(room).cast(), len)
            })),
            // SAFETY: room for any address, with its size.
            Call::PeerAddress { fd, room, len } => check(i64::from(unsafe {
                libc::getpeername(fd, std::ptr::from_mut(room).cast(), len)
            })),
        }
    }
}

fn set_non_blocking(calls: &mut u64, fd: RawFd) -> i32 {
    // SAFETY: the call takes ints.
    let flags = check(i64::from(unsafe { libc::fcntl(fd, libc::F_GETFL) }));
    if flags < 0 || flags & libc::O_NONBLOCK != 0 {
        return flags.min(0);
    }
    *calls += 1;
    // SAFETY: the call takes ints.
    check(i64::from(unsafe {
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
    }))
}

fn no_delay(fd: RawFd) -> i32 {
    let on: i32 = 1;
    let len = size_of::<i32>() as libc::socklen_t;
    let option = libc::TCP_NODELAY;
    // SAFETY: an int and its size, both local.
    check(i64::from(unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, option, (&raw const on).cast(), len)
    }))
}
