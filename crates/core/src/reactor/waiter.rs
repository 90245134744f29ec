//! Waiters: what waits for an operation, and how it is woken.

use pyo3::prelude::*;

use crate::py::call::{method0, method1};
use crate::py::make::name;
use crate::reactor::parking::Parking;
use crate::reactor::scheduler::Scheduler;

pub enum Waiter {
    /// A task that waits for a future of its loop.
    Future(Py<PyAny>),
    /// A greenlet: no future, no task in between.
    Greenlet(Py<Parking>),
}

impl Waiter {
    /// A waiter for the task that awaits.
    pub fn task(scheduler: &Bound<'_, Scheduler>) -> PyResult<Waiter> {
        let future = (scheduler.get().hooks()?.future)(scheduler)?;
        Ok(Waiter::Future(future.unbind()))
    }

    /// A waiter for the greenlet that runs now.
    pub fn greenlet(py: Python<'_>) -> PyResult<Waiter> {
        Ok(Waiter::Greenlet(Parking::here(py)?.unbind()))
    }

    /// What the task yields to its loop, to wait; for a greenlet, what it waits in.
    pub fn yields(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Waiter::Future(future) => future.clone_ref(py),
            Waiter::Greenlet(parking) => parking.clone_ref(py).into_any(),
        }
    }

    /// Whether it was woken already, or no longer waits.
    pub fn is_done(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Waiter::Future(future) => is_done(future.bind(py)),
            Waiter::Greenlet(parking) => Ok(parking.get().is_woken()),
        }
    }

    pub fn wake(&self, py: Python<'_>, scheduler: &Scheduler) -> PyResult<()> {
        match self {
            Waiter::Future(future) => wake_future(scheduler, future.bind(py)),
            Waiter::Greenlet(parking) => Parking::wake(parking.bind(py)),
        }
    }

    pub fn object(&self) -> &Py<PyAny> {
        match self {
            Waiter::Future(future) => future,
            Waiter::Greenlet(parking) => parking.as_any(),
        }
    }
}

pub fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    method0(future, name!("done"))?.is_truthy()
}

/// Wakes the task that waits for a future.
pub fn wake_future(scheduler: &Scheduler, future: &Bound<'_, PyAny>) -> PyResult<()> {
    match method1(future, name!("set_result"), future.py().None().bind(future.py())) {
        // It was cancelled in this turn. Its task will call `throw`.
        Err(_) if is_done(future)? => Ok(()),
        Ok(_) => {
            if scheduler.io.runs_here() {
                scheduler.futures.lock().keep(future.clone().unbind());
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}
