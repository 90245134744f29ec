//! CPU time of the calling thread: the one measure of cost that other processes on the machine do not blur.

use std::time::Duration;

/// CPU time (user and system) that the calling thread has used since it started (`clock_gettime(2)`,
/// `CLOCK_THREAD_CPUTIME_ID`).
#[must_use]
pub fn thread_time() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid, writable timespec. The call cannot fail for this clock; if it did, `now`
    // stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
