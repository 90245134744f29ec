//! One system call for one op: the non-blocking attempt that readiness engines make, and the blocking call that a
//! pool thread makes. Knows nothing of engines.

use std::os::fd::RawFd;

use crate::op::{Direction, Op};

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

/// An error of the one connection that was next: it died while it waited to be accepted, or a firewall forbids it
/// (accept(2), "Error handling" and EPERM).
pub(crate) fn is_transient_accept_error(error: i32) -> bool {
    matches!(
        -error,
        libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EPERM
            | libc::EINTR
    )
}

/// How many connections in a row may fail before an accept gives up: errors that never end are not of a connection, and
/// each of them would be followed by the next at once.
pub(crate) const ACCEPT_FAILURES: u8 = 64;

/// The process or the system has no fd or no memory for a connection now.
pub(crate) fn is_exhaustion(error: i32) -> bool {
    matches!(-error, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}

/// Whether a child has ended: 0, or [`AGAIN`]. Its status stays. Where a filter forbids waitid, the pidfd tells: it is
/// readable once the child has ended.
fn wait_id(pidfd: RawFd) -> i32 {
    // SAFETY: zeros are a value of siginfo_t, and what it says of a child that has nothing to tell.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: a local structure to fill.
    match check(i64::from(unsafe {
        libc::waitid(libc::P_PIDFD, pidfd as libc::id_t, &raw mut info, options)
    })) {
        0 if info.si_signo == 0 => AGAIN,
        denied if matches!(-denied, libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            match poll_now(pidfd, libc::POLLIN as u32) {
                ready if ready > 0 => 0,
                result => result,
            }
        }
        result => result,
    }
}

fn is_regular(fd: RawFd) -> bool {
    // SAFETY: a stat of zeros is a value; fstat fills it or fails.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let result = unsafe { libc::fstat(fd, &raw mut status) };
    result == 0 && matches!(status.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK)
}

/// Tries a read or write at the current position: pipes, ttys, sockets, whether they are in non-blocking mode or not.
///
/// # Safety
/// As [`attempt`], for each of the `count` vectors.
unsafe fn stream(
    op: &Op,
    fd: RawFd,
    event: i16,
    (iov, count): (*const libc::iovec, u32),
    calls: &mut u64,
) -> i32 {
    let result = retry(|| {
        *calls += 1;
        // SAFETY: the caller's contract.
        check(unsafe {
            if event == libc::POLLIN {
                libc::preadv2(fd, iov, count as i32, -1, libc::RWF_NOWAIT)
            } else {
                libc::pwritev2(fd, iov, count as i32, -1, libc::RWF_NOWAIT)
            }
        } as i64)
    });
    match -result {
        libc::EAGAIN => {
            *calls += 1;
            if !is_regular(fd) {
                return AGAIN;
            }
        }
        // The file does not know RWF_NOWAIT (a tty; a pipe before Linux 6.4).
        libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM => {
            *calls += 1;
            let events = poll_now(fd, event as u32);
            if events <= 0 {
                return events;
            }
        }
        _ => return result,
    }
    *calls += 1;
    // SAFETY: the caller's contract.
    unsafe { block(op) }
}

/// Tries an op once without blocking: its result, or [`AGAIN`]. A connect that has begun answers `-EINPROGRESS`.
///
/// Sockets to accept on or to connect are in non-blocking mode: no flag asks for it. What only a disk makes wait (a
/// regular file at its current position) does wait; at an offset the answer is [`AGAIN`].
///
/// # Safety
/// What the op points at is valid, as `Driver::submit` demands.
pub unsafe fn attempt(op: &Op) -> i32 {
    // SAFETY: passed on.
    unsafe { attempt_counted(op, &mut 0) }
}

/// [`attempt`], adding the system calls it makes to `calls`.
///
/// # Safety
/// As [`attempt`].
pub(crate) unsafe fn attempt_counted(op: &Op, calls: &mut u64) -> i32 {
    const NOWAIT: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let one = |buf: *mut u8, len: usize| {
        [libc::iovec {
            iov_base: buf.cast(),
            iov_len: len,
        }]
    };
    // SAFETY: the pointers are the submitter's, valid by contract; no call blocks, for its flags say so.
    unsafe {
        match *op {
            Op::Read {
                fd,
                buf,
                len,
                offset: -1,
            } => return stream(op, fd, libc::POLLIN, (one(buf, len).as_ptr(), 1), calls),
            Op::Write {
                fd,
                buf,
                len,
                offset: -1,
            } => {
                return stream(
                    op,
                    fd,
                    libc::POLLOUT,
                    (one(buf.cast_mut(), len).as_ptr(), 1),
                    calls,
                );
            }
            Op::Readv {
                fd,
                iov,
                count,
                offset: -1,
            } => return stream(op, fd, libc::POLLIN, (iov, count), calls),
            Op::Writev {
                fd,
                iov,
                count,
                offset: -1,
            } => return stream(op, fd, libc::POLLOUT, (iov, count), calls),
            _ => {}
        }
        retry(|| {
            *calls += 1;
            match *op {
                Op::AcceptMulti { fd } | Op::Accept { fd } => accept(fd),
                // A connect that a signal interrupts goes on by itself: asked again, it answers EALREADY.
                Op::Connect { fd, addr, len } => match check(i64::from(libc::connect(fd, addr, len))) {
                    interrupted if interrupted == -libc::EINTR => -libc::EINPROGRESS,
                    result => result,
                },
                Op::Recv { fd, buf, len, flags } => {
                    check(libc::recv(fd, buf.cast(), len, flags | NOWAIT) as i64)
                }
                Op::Send { fd, buf, len, flags } => {
                    let flags = (flags & !libc::MSG_WAITALL) | NOWAIT;
                    check(libc::send(fd, buf.cast(), len, flags) as i64)
                }
                Op::SendMsg { fd, msg, flags } => {
                    let flags = (flags & !libc::MSG_WAITALL) | NOWAIT;
                    check(libc::sendmsg(fd, msg, flags) as i64)
                }
                Op::RecvMsg { fd, msg, flags } => check(libc::recvmsg(fd, msg, flags | NOWAIT) as i64),
                Op::Poll { fd, events } | Op::PollMulti { fd, events } => poll_now(fd, events),
                Op::WaitId { pidfd } => wait_id(pidfd),
                Op::Shutdown { .. } | Op::Close { .. } => block(op),
                _ => AGAIN,
            }
        })
    }
}

/// Sends a piece of a file, in non-blocking mode, without copying it here: the count, 0 at its end, or [`AGAIN`].
pub fn send_file(socket: RawFd, file: RawFd, offset: i64, len: usize) -> i32 {
    let mut at = offset;
    let len = len.min(0x7fff_f000);
    // SAFETY: a local offset.
    retry(|| check(unsafe { libc::sendfile64(socket, file, &raw mut at, len) } as i64))
}

/// Which side a splice has to wait for: the first that is not ready; `None`: neither.
pub(crate) fn splice_waits_on(from: RawFd, to: RawFd) -> Option<(RawFd, Direction)> {
    if poll_now(from, libc::POLLIN as u32) == AGAIN {
        Some((from, Direction::Read))
    } else if poll_now(to, libc::POLLOUT as u32) == AGAIN {
        Some((to, Direction::Write))
    } else {
        None
    }
}

/// Performs an op, waiting for the disk if it must. A splice does not wait for its pipe or socket: [`AGAIN`].
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
                if splice_waits_on(from, to).is_some() {
                    return AGAIN;
                }
                let flags = flags | libc::SPLICE_F_NONBLOCK;
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
