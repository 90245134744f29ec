//! The loop's clock: monotonic, in nanoseconds.

/// Converts seconds of the monotonic clock to nanoseconds. A number outside of the range becomes the nearest end of the range.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The time in nanoseconds, of the clock that `time.monotonic()` reads.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a local timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
