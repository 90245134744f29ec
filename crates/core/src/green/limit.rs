//! The time that a call may wait. Its timer is made when the call has to wait, which most never do.

use pyo3::prelude::*;

use crate::py::call::method0;
use crate::py::make::name;
use crate::reactor::hub::interrupt_later;

/// The limit of one call: for its greenlet, which gets TimeoutError where it waits.
pub struct Limit<'py> {
    seconds: Option<f64>,
    timer: Option<Bound<'py, PyAny>>,
}

impl<'py> Limit<'py> {
    pub fn of(seconds: Option<f64>) -> Limit<'py> {
        Limit { seconds, timer: None }
    }

    /// The call waits: from now on the time counts.
    #[inline]
    pub fn begin(&mut self, py: Python<'py>) -> PyResult<()> {
        if let Some(seconds) = self.seconds.take() {
            self.timer = Some(interrupt_later(py, seconds)?);
        }
        Ok(())
    }

    /// Counts the time of all that `call` does.
    pub fn around<R>(mut self, py: Python<'py>, call: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        self.begin(py)?;
        call()
    }
}

impl Drop for Limit<'_> {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            // A timer of the loop's: its `cancel` does not fail.
            let _ = method0(timer, name!("cancel"));
        }
    }
}
