//! The clock of a loop and its engine.

/// A clock that never goes back. Any thread may read it.
pub trait Clock: Send + Sync {
    /// Nanoseconds since some fixed point.
    fn now(&self) -> u64;
}

/// `CLOCK_MONOTONIC`, as `time.monotonic()` reads it.
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> u64 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: a local structure to fill. The clock always exists.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}
