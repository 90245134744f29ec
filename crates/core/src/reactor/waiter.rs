//! Who waits for an operation, and how it is woken.

use pyo3::prelude::*;

use crate::py::call::{method0, method1};
use crate::py::make::name;
use crate::reactor::scheduler::Scheduler;

pub enum Waiter {
    /// A task, which waits for a future of its loop.
    Future(Py<PyAny>),
}

impl Waiter {
    /// For the task that awaits.
    pub fn task(scheduler: &Bound<'_, Scheduler>) -> PyResult<Waiter> {
        let future = (scheduler.get().hooks()?.future)(scheduler.as_any())?;
        Ok(Waiter::Future(future.unbind()))
    }

    /// What the task is to yield to its loop.
    pub fn yields(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Waiter::Future(future) => future.clone_ref(py),
        }
    }

    /// Whether it was woken already, or does not wait any more.
    pub fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Waiter::Future(future) => method0(future.bind(py), name!("done"))?.is_truthy(),
        }
    }

    pub fn wake(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Waiter::Future(future) => {
                match method1(future.bind(py), name!("set_result"), py.None().bind(py)) {
                    // Cancelled in this turn: its task will say so through `throw`.
                    Err(_) if self.is_done(py)? => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        }
    }

    pub fn object(&self) -> &Py<PyAny> {
        match self {
            Waiter::Future(future) => future,
        }
    }
}
