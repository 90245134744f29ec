//! What the kernel can say of a file without waiting for a disk: an open whose path is in the dentry cache.

use std::ffi::CStr;
use std::os::fd::RawFd;

use crate::syscalls::{AGAIN, check, retry};

/// Opens a file if that needs no wait: the fd, close-on-exec and in non-blocking mode. `AGAIN`: nobody can say without waiting.
///
/// The mode keeps the call from waiting for the other end of a FIFO. A regular file does not care.
pub(crate) fn open(calls: &mut u64, dir: RawFd, path: &CStr, flags: i32) -> i32 {
    // The kernel refuses all of these at once (openat2(2), `RESOLVE_CACHED`).
    let changes = libc::O_CREAT | libc::O_TRUNC;
    if flags & changes != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return AGAIN;
    }
    // SAFETY: zeros are a valid open_how, which has private fields in some versions.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Unlike open(2), this call refuses flags that mean nothing beside O_PATH, which opens no FIFO.
    let no_wait = if flags & libc::O_PATH == 0 {
        libc::O_NONBLOCK
    } else {
        0
    };
    how.flags = (flags | libc::O_CLOEXEC | no_wait) as u64;
    how.resolve = libc::RESOLVE_CACHED;
    let result = retry(calls, || {
        let (path, how) = (path.as_ptr(), &raw const how);
        // SAFETY: a terminated path, and a structure with its size.
        check(unsafe { libc::syscall(libc::SYS_openat2, dir, path, how, size_of::<libc::open_how>()) })
    });
    match -result {
        // A FIFO without a reader, a device, or a kernel or a filter that knows no openat2.
        libc::ENXIO | libc::ENODEV | libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG => AGAIN,
        _ => result,
    }
}
