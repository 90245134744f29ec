//! Flow control: the water marks of a buffer, and whether the side that fills it was told to pause.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::make::py_error;

/// asyncio's default high-water mark, in bytes.
pub const HIGH_WATER: usize = 64 * 1024;

pub struct Flow {
    pub high: usize,
    pub low: usize,
    pub paused: bool,
}

impl Flow {
    /// The low mark is a quarter of the high one.
    pub fn new(high: usize) -> Flow {
        Flow {
            high,
            low: high / 4,
            paused: false,
        }
    }

    /// Whether `size` bytes are so many that the filler has to be told to pause: it counts as told.
    pub fn pauses(&mut self, size: usize) -> bool {
        let pauses = self.would_pause(size);
        self.paused |= pauses;
        pauses
    }

    pub fn would_pause(&self, size: usize) -> bool {
        size > self.high && !self.paused
    }

    /// Whether `size` bytes are so few that the filler has to be told to go on: it counts as told.
    pub fn resumes(&mut self, size: usize) -> bool {
        let resumes = self.paused && size <= self.low;
        self.paused &= !resumes;
        resumes
    }

    /// `(low, high)`
    pub fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Sets the marks that a program asks for. Without a high mark it is four times the low one; without both it is `default`.
    ///
    /// # Errors
    /// `ValueError` for marks below 0 or in the wrong order.
    pub fn set_limits(&mut self, high: Option<i64>, low: Option<i64>, default: usize) -> PyResult<()> {
        let high = high.unwrap_or_else(|| low.map_or(default as i64, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if low < 0 || high < low {
            return Err(py_error::<PyValueError>(format!(
                "high ({high}) must be >= low ({low}) must be >= 0"
            )));
        }
        (self.low, self.high) = (low as usize, high as usize);
        Ok(())
    }
}
