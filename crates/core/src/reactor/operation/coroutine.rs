//! An operation as a coroutine: the methods that a task calls.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::{Operation, State};
use crate::py::coroutine::{coroutine_methods, thrown};

coroutine_methods!(Operation);

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

    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        slf: &Bound<'_, Self>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Operation::abandon(slf);
        Err(thrown(kind, value, traceback)?)
    }

    fn close(slf: &Bound<'_, Self>) {
        Operation::abandon(slf);
    }
}
