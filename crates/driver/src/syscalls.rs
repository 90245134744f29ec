//! What the system calls of ops share, and the calls that are made without an op. This file knows no ops.

use std::os::fd::RawFd;

/// `-EAGAIN`: the fd is not ready; try again when it is.
pub const AGAIN: i32 = -libc::EAGAIN;

/// Turns the result of a system call into a count or `-errno`.
pub(crate) fn check(result: i64) -> i32 {
    if result < 0 {
        // SAFETY: this thread's errno is always readable.
        return -unsafe { *libc::__errno_location() };
    }
    result as i32
}

/// Repeats a call while signals interrupt it, and counts the calls.
pub(crate) fn retry(calls: &mut u64, mut call: impl FnMut() -> i32) -> i32 {
    loop {
        *calls += 1;
        let result = call();
        if result != -libc::EINTR {
            return result;
        }
    }
}

/// A number among the options of a socket, at the level of sockets; or the negative errno.
fn socket_option(fd: RawFd, option: i32) -> i32 {
    let mut value: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: an int and its size, both local.
    let result = check(i64::from(unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, option, value, &raw mut len)
    }));
    if result < 0 { result } else { value }
}

/// The pending error of a socket (`SO_ERROR`), as `-errno`.
pub fn socket_error(fd: RawFd) -> i32 {
    -socket_option(fd, libc::SO_ERROR).abs()
}

/// The protocol of a socket (`SO_PROTOCOL`); or the negative errno.
pub fn socket_protocol(fd: RawFd) -> i32 {
    socket_option(fd, libc::SO_PROTOCOL)
}

/// The events out of `events` that an fd has now, and `POLLERR` and `POLLHUP`: `poll(2)` with a timeout of zero.
/// [`AGAIN`]: none.
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

/// Whether the reading end of a FIFO has a writer, or has had one since it was opened: 1 or 0, or `-errno`. Nothing is read.
pub fn has_writer(fd: RawFd) -> i32 {
    // Bytes, or the end of a writer.
    let events = poll_now(fd, libc::POLLIN as u32);
    if events != AGAIN {
        return events.min(1);
    }
    let mut scratch = [-1; 2];
    // SAFETY: room for two fds.
    let made = check(i64::from(unsafe {
        libc::pipe2(scratch.as_mut_ptr(), libc::O_CLOEXEC)
    }));
    if made < 0 {
        return made;
    }
    let result = retry(&mut 0, || {
        // SAFETY: the call takes ints.
        check(unsafe { libc::tee(fd, scratch[1], 1, libc::SPLICE_F_NONBLOCK) } as i64)
    });
    for fd in scratch {
        // SAFETY: these were opened above.
        unsafe { libc::close(fd) };
    }
    // An empty FIFO has a writer if one might wait for bytes.
    match result {
        AGAIN => 1,
        other => other,
    }
}

/// As [`file_type`], of the file that a path names.
///
/// # Safety
/// The path ends in a zero.
pub(crate) unsafe fn file_type_at(dir: RawFd, path: *const libc::c_char) -> i32 {
    // SAFETY: all zeros is a valid stat; fstatat fills it or fails.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a local structure to fill, and the caller's path.
    match check(i64::from(unsafe { libc::fstatat(dir, path, &raw mut status, 0) })) {
        0 => (status.st_mode & libc::S_IFMT) as i32,
        error => error,
    }
}

/// The type bits of a file's `st_mode` (`S_IFMT`), or `-errno`.
pub(crate) fn file_type(fd: RawFd) -> i32 {
    // SAFETY: all zeros is a valid stat; fstat fills it or fails.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a local structure to fill.
    match check(i64::from(unsafe { libc::fstat(fd, &raw mut status) })) {
        0 => (status.st_mode & libc::S_IFMT) as i32,
        error => error,
    }
}
