//! The handle that `call_soon_threadsafe` returns since Python 3.14. While its callback runs, `cancel` and `cancelled` make
//! every other thread wait, so that a thread knows afterwards whether the callback has run.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use pyo3::prelude::*;

use crate::reactor::handle::{Failure, Handle};

/// Whether this Python's asyncio has such handles.
pub const EXPECTED: bool = cfg!(Py_3_14);

/// A waiting thread looks this often whether a signal has arrived.
const SIGNALS: Duration = Duration::from_millis(50);

/// A callback scheduled from any thread, as asyncio's `_ThreadSafeHandle`.
#[pyclass(frozen, extends = Handle, module = "proact._core")]
pub struct ThreadSafeHandle {
    /// The thread in which the callback runs.
    runs_in: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

impl ThreadSafeHandle {
    pub fn create(py: Python<'_>, handle: Handle) -> PyResult<Py<Handle>> {
        let shared = ThreadSafeHandle {
            runs_in: Mutex::new(None),
            ended: Condvar::new(),
        };
        let shared = Py::new(py, PyClassInitializer::from(handle).add_subclass(shared))?;
        Ok(shared.into_bound(py).into_super().unbind())
    }

    fn runs_in(&self) -> MutexGuard<'_, Option<ThreadId>> {
        // Nothing panics while it holds the lock.
        self.runs_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the callback as [`Handle::run`] does. `running` is set before the callback is taken out, so a thread that finds
    /// nothing to cancel finds the callback running, or ended.
    pub fn run(slf: &Bound<'_, Self>) -> Result<(), Failure> {
        let this = slf.get();
        *this.runs_in() = Some(thread::current().id());
        let outcome = slf.as_super().get().run(slf.py());
        *this.runs_in() = None;
        this.ended.notify_all();
        outcome
    }

    /// Waits until no other thread runs the callback. The callback itself may ask and cancel.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let own = thread::current().id();
        let elsewhere = |runs_in: &mut Option<ThreadId>| runs_in.is_some_and(|thread| thread != own);
        while elsewhere(&mut self.runs_in()) {
            py.detach(|| drop(self.ended.wait_timeout_while(self.runs_in(), SIGNALS, elsewhere)));
            py.check_signals()?;
        }
        Ok(())
    }
}

#[pymethods]
impl ThreadSafeHandle {
    fn cancel(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.as_super().get().cancel_once() {
            return Ok(());
        }
        slf.get().wait(slf.py())
    }

    fn cancelled(slf: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().wait(slf.py())?;
        Ok(slf.as_super().get().is_cancelled())
    }
}
