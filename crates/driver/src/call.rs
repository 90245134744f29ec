//! The system calls that a loop makes beside its ops. None of them waits. They go through [`crate::Driver::call`], so
//! that an engine counts them, and an engine that simulates the kernel can answer them.

use std::os::fd::RawFd;

use crate::syscalls::{check, file_type, poll_now, retry, socket_error};

/// One system call. Results are `-errno` or what is said here.
pub enum Call<'a> {
    /// Whether the number is an open file: at least 0 if so (`F_GETFD`).
    IsOpen { fd: RawFd },
    /// What kind of file it is: the type bits of `st_mode` (`S_IFMT`).
    FileType { fd: RawFd },
    /// Puts the file into non-blocking mode.
    SetNonBlocking { fd: RawFd },
    /// Sets `TCP_NODELAY`.
    NoDelay { fd: RawFd },
    /// The pending error of a socket (`SO_ERROR`), as `-errno`.
    SocketError { fd: RawFd },
    /// Which of `events` (`poll(2)`) the fd has now, `POLLERR` and `POLLHUP` besides; `-EAGAIN`: none.
    Poll { fd: RawFd, events: u32 },
    /// Sends a piece of a file, in non-blocking mode, without copying it here: the count, 0 at its end, or `-EAGAIN`.
    SendFile {
        socket: RawFd,
        file: RawFd,
        offset: i64,
        len: usize,
    },
    /// The socket's own address into `room`, whose length is set.
    LocalAddress {
        fd: RawFd,
        room: &'a mut libc::sockaddr_storage,
        len: &'a mut libc::socklen_t,
    },
    /// The peer's address, as `LocalAddress`.
    PeerAddress {
        fd: RawFd,
        room: &'a mut libc::sockaddr_storage,
        len: &'a mut libc::socklen_t,
    },
}

impl Call<'_> {
    /// Adds the system calls to `calls`.
    pub(crate) fn make(self, calls: &mut u64) -> i32 {
        *calls += 1;
        match self {
            // SAFETY: F_GETFD only reads the fd table.
            Call::IsOpen { fd } => check(i64::from(unsafe { libc::fcntl(fd, libc::F_GETFD) })),
            Call::FileType { fd } => file_type(fd),
            Call::SetNonBlocking { fd } => {
                // SAFETY: the two calls take ints.
                let flags = check(i64::from(unsafe { libc::fcntl(fd, libc::F_GETFL) }));
                if flags < 0 || flags & libc::O_NONBLOCK != 0 {
                    return flags.min(0);
                }
                *calls += 1;
                // SAFETY: as above.
                check(i64::from(unsafe {
                    libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)
                }))
            }
            Call::NoDelay { fd } => {
                let on: i32 = 1;
                let len = size_of::<i32>() as libc::socklen_t;
                // SAFETY: an int and its size, both local.
                check(i64::from(unsafe {
                    libc::setsockopt(
                        fd,
                        libc::IPPROTO_TCP,
                        libc::TCP_NODELAY,
                        (&raw const on).cast(),
                        len,
                    )
                }))
            }
            Call::SocketError { fd } => socket_error(fd),
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
            // SAFETY: room for any address, with its size.
            Call::LocalAddress { fd, room, len } => check(i64::from(unsafe {
                libc::getsockname(fd, std::ptr::from_mut(room).cast(), len)
            })),
            // SAFETY: as above.
            Call::PeerAddress { fd, room, len } => check(i64::from(unsafe {
                libc::getpeername(fd, std::ptr::from_mut(room).cast(), len)
            })),
        }
    }
}
