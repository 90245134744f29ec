//! The loop's unit of time: nanoseconds of its engine's clock.

/// Converts seconds of the monotonic clock to nanoseconds. A number outside of the range becomes the nearest end of the range.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
