//! What the system calls of ops have in common, and the calls that are made without an op. Knows nothing of ops.

use std::os::fd::RawFd;

/// `-EAGAIN`: the fd is not ready, try again when it is.
pub const AGAIN: i32 = -libc::EAGAIN;

/// The result of a system call, negative as `-errno`.
pub(crate) fn check(result: i64) -> i32 {
    if result < 0 {
        // SAFETY: errno of this thread, always readable.
        return -unsafe { *libc::__errno_location() };
    }
    result as i32
}

/// Makes a call again while signals interrupt it, and counts the calls.
pub(crate) fn retry(calls: &mut u64, mut call: impl FnMut() -> i32) -> i32 {
    loop {
        *calls += 1;
        let result = call();
        if result != -libc::EINTR {
            return result;
        }
    }
}

/// The pending error of a socket (`SO_ERROR`), as a result.
pub fn socket_error(fd: RawFd) -> i32 {
    let mut error: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: an int and its size, both local.
    let result = check(i64::from(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    }));
    if result < 0 { result } else { -error }
}

/// Which of `events` an fd has now, as `poll(2)` with no timeout tells; `POLLERR` and `POLLHUP` besides.
pub fn poll_now(fd: RawFd, events: u32) -> i32 {
    let mut entry = libc::pollfd {
        fd,
        events: events as i16,
        revents: 0,
    };
    let count = retry(&mut 0, || {
        // SAFETY: one entry, local.
        check(i64::from(unsafe { libc::poll(&raw mut entry, 1, 0) }))
    });
    match count {
        0 => AGAIN,
        error if error < 0 => error,
        _ if entry.revents & libc::POLLNVAL != 0 => -libc::EBADF,
        _ => i32::from(entry.revents as u16),
    }
}

/// Sends a piece of a file, in non-blocking mode, without copying it here: the count, 0 at its end, or [`AGAIN`].
pub fn send_file(socket: RawFd, file: RawFd, offset: i64, len: usize) -> i32 {
    let mut at = offset;
    let len = len.min(0x7fff_f000);
    retry(&mut 0, || {
        // SAFETY: a local offset.
        check(unsafe { libc::sendfile64(socket, file, &raw mut at, len) } as i64)
    })
}
