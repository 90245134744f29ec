//! One system call for one op: the non-blocking attempt that readiness engines make, and the blocking call that a
//! pool thread makes. Knows nothing of engines.

use std::os::fd::RawFd;

use crate::op::Op;

/// `-EAGAIN`: the fd is not ready, try again when it is.
pub const AGAIN: i32 = -libc::EAGAIN;

fn check(result: i64) -> i32 {
    if result < 0 {
        // SAFETY: errno of this thread, always readable.
        return -unsafe { *libc::__errno_location() };
    }
    result as i32
}

/// Repeats an attempt that a signal interrupted.
fn retry(mut call: impl FnMut() -> i32) -> i32 {
    loop {
        let result = call();
        if result != -libc::EINTR {
            return result;
        }
    }
}

fn accept(fd: RawFd) -> i32 {
    // SAFETY: no address is asked for.
    check(i64::from(unsafe {
        libc::accept4(
            fd,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    }))
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
    // SAFETY: one entry, local.
    let count = check(i64::from(unsafe { libc::poll(&raw mut entry, 1, 0) }));
    match count {
        0 => AGAIN,
        error if error < 0 => error,
        _ if entry.revents & libc::POLLNVAL != 0 => -libc::EBADF,
        _ => i32::from(entry.revents as u16),
    }
}

/// Tries an op once without blocking: its result, or [`AGAIN`]. A connect that has begun answers `-EINPROGRESS`.
///
/// # Safety
/// What the op points at is valid, as `Driver::submit` demands.
pub unsafe fn attempt(op: &Op) -> i32 {
    const NOWAIT: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointers are the submitter's, valid by contract; the calls do not block, for the flags say so or the
    // fd was polled ready before (read and write at the current position).
    unsafe {
        match *op {
            Op::AcceptMulti { fd } | Op::Accept { fd } => retry(|| accept(fd)),
            Op::Connect { fd, addr, len } => check(i64::from(libc::connect(fd, addr, len))),
            Op::Recv { fd, buf, len, flags } => {
                retry(|| check(libc::recv(fd, buf.cast(), len, flags | NOWAIT) as i64))
            }
            Op::Send { fd, buf, len, flags } => {
                let flags = (flags & !libc::MSG_WAITALL) | NOWAIT;
                retry(|| check(libc::send(fd, buf.cast(), len, flags) as i64))
            }
            Op::SendMsg { fd, msg, flags } => {
                let flags = (flags & !libc::MSG_WAITALL) | NOWAIT;
                retry(|| check(libc::sendmsg(fd, msg, flags) as i64))
            }
            Op::RecvMsg { fd, msg, flags } => retry(|| check(libc::recvmsg(fd, msg, flags | NOWAIT) as i64)),
            Op::Poll { fd, events } | Op::PollMulti { fd, events } => poll_now(fd, events),
            Op::Read { fd, offset: -1, .. } | Op::Readv { fd, offset: -1, .. } => {
                match poll_now(fd, libc::POLLIN as u32) {
                    events if events > 0 => block(op),
                    other => other,
                }
            }
            Op::Write { fd, offset: -1, .. } | Op::Writev { fd, offset: -1, .. } => {
                match poll_now(fd, libc::POLLOUT as u32) {
                    events if events > 0 => block(op),
                    other => other,
                }
            }
            Op::Shutdown { .. } | Op::Close { .. } => block(op),
            _ => AGAIN,
        }
    }
}

/// Performs an op, blocking if it must.
///
/// # Safety
/// As [`attempt`].
pub unsafe fn block(op: &Op) -> i32 {
    // SAFETY: the pointers are the submitter's, valid by contract.
    unsafe {
        match *op {
            Op::Read {
                fd,
                buf,
                len,
                offset: -1,
            } => retry(|| check(libc::read(fd, buf.cast(), len) as i64)),
            Op::Read { fd, buf, len, offset } => {
                retry(|| check(libc::pread64(fd, buf.cast(), len, offset) as i64))
            }
            Op::Write {
                fd,
                buf,
                len,
                offset: -1,
            } => retry(|| check(libc::write(fd, buf.cast(), len) as i64)),
            Op::Write { fd, buf, len, offset } => {
                retry(|| check(libc::pwrite64(fd, buf.cast(), len, offset) as i64))
            }
            Op::Readv {
                fd,
                iov,
                count,
                offset: -1,
            } => retry(|| check(libc::readv(fd, iov, count as i32) as i64)),
            Op::Readv {
                fd,
                iov,
                count,
                offset,
            } => retry(|| check(libc::preadv64(fd, iov, count as i32, offset) as i64)),
            Op::Writev {
                fd,
                iov,
                count,
                offset: -1,
            } => retry(|| check(libc::writev(fd, iov, count as i32) as i64)),
            Op::Writev {
                fd,
                iov,
                count,
                offset,
            } => retry(|| check(libc::pwritev64(fd, iov, count as i32, offset) as i64)),
            Op::OpenAt {
                dir,
                path,
                flags,
                mode,
            } => retry(|| check(i64::from(libc::openat(dir, path, flags | libc::O_CLOEXEC, mode)))),
            // Not retried: on Linux the fd is gone even when close is interrupted (close(2), "Dealing with error
            // returns").
            Op::Close { fd } => match check(i64::from(libc::close(fd))) {
                interrupted if interrupted == -libc::EINTR => 0,
                result => result,
            },
            Op::Fsync { fd, data_only: false } => retry(|| check(i64::from(libc::fsync(fd)))),
            Op::Fsync { fd, data_only: true } => retry(|| check(i64::from(libc::fdatasync(fd)))),
            Op::Statx {
                dir,
                path,
                flags,
                mask,
                buf,
            } => retry(|| check(i64::from(libc::statx(dir, path, flags, mask, buf)))),
            Op::Splice {
                from,
                from_offset,
                to,
                to_offset,
                len,
                flags,
            } => {
                let (mut from_at, mut to_at) = (from_offset, to_offset);
                let from_ptr = if from_offset < 0 {
                    std::ptr::null_mut()
                } else {
                    &raw mut from_at
                };
                let to_ptr = if to_offset < 0 {
                    std::ptr::null_mut()
                } else {
                    &raw mut to_at
                };
                retry(|| check(libc::splice(from, from_ptr, to, to_ptr, len as usize, flags) as i64))
            }
            Op::Shutdown { fd, how } => check(i64::from(libc::shutdown(fd, how))),
            _ => attempt(op),
        }
    }
}
