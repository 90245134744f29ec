//! System calls for which glibc has functions only since 2.26 or 2.28: made by their numbers, so that the library also loads on older
//! ones, and builds for musl, which lacks some. Each takes what the function takes, and returns -1 with `errno` set.

use libc::{c_char, c_int, c_long, c_uint, iovec, off64_t};

/// The two halves of an offset. A kernel of 64 bits takes all of it from the first, and ignores the other.
fn halves(offset: off64_t) -> (c_long, c_long) {
    (offset as c_long, (offset >> 32) as c_long)
}

/// # Safety
/// As preadv2(2).
pub unsafe fn preadv2(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> c_long {
    let (low, high) = halves(offset);
    // SAFETY: the caller's contract.
    unsafe { libc::syscall(libc::SYS_preadv2, fd, iov, count, low, high, flags) }
}

/// # Safety
/// As pwritev2(2).
pub unsafe fn pwritev2(fd: c_int, iov: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> c_long {
    let (low, high) = halves(offset);
    // SAFETY: the caller's contract.
    unsafe { libc::syscall(libc::SYS_pwritev2, fd, iov, count, low, high, flags) }
}

/// # Safety
/// As statx(2).
pub unsafe fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    room: *mut libc::statx,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { libc::syscall(libc::SYS_statx, dir, path, flags, mask, room) as c_int }
}

/// # Safety
/// As renameat2(2).
pub unsafe fn renameat2(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from, to_dir, to, flags) as c_int }
}
