//! The loop's clock: the monotonic one, in nanoseconds.

/// Seconds of the monotonic clock as nanoseconds; what lies outside the range is the nearest end of it.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The monotonic clock, in nanoseconds: the same that `time.monotonic()` reads.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a local timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
