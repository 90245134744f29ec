//! An operation as a coroutine: the methods that a task calls.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::{Operation, State};
use crate::py::coroutine::coroutine_methods;

coroutine_methods!(Operation);

impl Operation {
    fn end<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        Operation::abandon(slf);
        None
    }
}

#[pymethods]
impl Operation {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.object)?;
        match self.state.look().as_deref() {
            Some(State::InFlight { work, waiter, .. } | State::Queued { work, waiter, .. }) => {
                visit.call(waiter.object())?;
                work.traverse(visit)
            }
            Some(State::New(work) | State::Woken { work, .. }) => work.traverse(visit),
            Some(State::Done(Ok(value))) => visit.call(value),
            _ => Ok(()),
        }
    }
}
