//! An operation as a coroutine: the methods that a task calls.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::{Operation, State, Step};
use crate::py::make::{name, set_stop_iteration};

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

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        match Operation::step(slf)? {
            Step::Waits(yields) => Ok(Some(yields)),
            Step::Finished(value) => {
                // PyO3's slot of `__next__` returns NULL for `None`, and so passes on the exception that is set.
                set_stop_iteration(value.bind(slf.py()));
                Ok(None)
            }
        }
    }

    fn send(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        match Operation::step(slf)? {
            Step::Waits(yields) => Ok(yields),
            Step::Finished(value) => {
                set_stop_iteration(value.bind(slf.py()));
                Err(PyErr::fetch(slf.py()))
            }
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
        let py = slf.py();
        let error = match value {
            Some(value) if value.is_instance_of::<PyBaseException>() => value,
            Some(value) if !value.is_none() => kind.call1((value,))?,
            _ => kind,
        };
        let error = PyErr::from_value(error);
        if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
            error.value(py).setattr(name!("__traceback__"), traceback)?;
        }
        Err(error)
    }

    fn close(slf: &Bound<'_, Self>) {
        Operation::abandon(slf);
    }
}
