//! The loop's unit of time: nanoseconds of its engine's clock.

/// Seconds of the monotonic clock as nanoseconds; what lies outside the range is the nearest end of it.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
