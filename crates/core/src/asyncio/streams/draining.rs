//! `await writer.drain()` of a server's connection: an awaitable, and no coroutine if the transport takes more.
//!
//! If it does not, or ends, or the reader has failed, asyncio's own coroutine is begun instead.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::state::StreamState;
use super::{WRITER, original};
use crate::asyncio::transport::stream::StreamTransport;
use crate::py::call::own_attribute;
use crate::py::cell::SharedCell;
use crate::py::coroutine::{Step, coroutine_methods, never_awaited, step_instead};
use crate::py::make::{Text, name};

/// What a writer's `drain` looks at.
#[pyclass(frozen, module = "proact._core")]
pub struct WriterState {
    reader: Py<StreamState>,
    transport: Py<StreamTransport>,
}

#[pymethods]
impl WriterState {
    #[new]
    fn new(reader: Py<StreamState>, transport: Py<StreamTransport>) -> WriterState {
        WriterState { reader, transport }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reader)?;
        visit.call(&self.transport)
    }
}

impl WriterState {
    pub fn transport<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, StreamTransport> {
        self.transport.bind(py)
    }
}

/// The state of a writer that was made native. `None`: the program has given it another transport since, as it does for TLS.
#[inline]
pub fn of<'py>(writer: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, WriterState>>> {
    let state = own_attribute(writer, name!("_native"))?.cast_into::<WriterState>()?;
    let is_its_own = own_attribute(writer, name!("_transport"))?.is(&state.get().transport);
    Ok(is_its_own.then_some(state))
}

enum State {
    New,
    Instead(Py<PyAny>),
    Spent,
}

/// An awaitable drain of a stream.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Draining {
    writer: Py<PyAny>,
    looks_at: Py<WriterState>,
    state: SharedCell<State>,
}

impl Draining {
    pub fn begin(writer: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let Some(looks_at) = of(writer)? else {
            return Ok(original(&WRITER, writer, name!("drain"), None)?.unbind());
        };
        let draining = Draining {
            writer: writer.clone().unbind(),
            looks_at: looks_at.unbind(),
            state: SharedCell::new(State::New),
        };
        Ok(Py::new(writer.py(), draining)?.into_any())
    }

    fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let before = std::mem::replace(&mut *this.state.lock(), State::Spent);
        let coroutine = match before {
            State::New => {
                let looks_at = this.looks_at.get();
                if !looks_at.reader.get().has_failed() && looks_at.transport.get().takes_more()? {
                    return Ok(Step::Finished(py.None()));
                }
                original(&WRITER, this.writer.bind(py), name!("drain"), None)?
            }
            State::Instead(coroutine) => coroutine.into_bound(py),
            State::Spent => return Err(super::awaited_already()),
        };
        *this.state.lock() = State::Instead(coroutine.clone().unbind());
        step_instead(&coroutine)
    }

    /// Ends without a result. Returns the coroutine that runs in its place.
    fn end<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let state = &mut *this.state.lock();
        match state {
            State::Instead(coroutine) => Some(coroutine.bind(py).clone()),
            _ => {
                *state = State::Spent;
                None
            }
        }
    }
}

coroutine_methods!(Draining);

#[pymethods]
impl Draining {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.writer)?;
        visit.call(&self.looks_at)?;
        match self.state.look().as_deref() {
            Some(State::Instead(coroutine)) => visit.call(coroutine),
            _ => Ok(()),
        }
    }

    #[getter]
    fn __qualname__(&self) -> Text<&'static str> {
        Text("StreamWriter.drain")
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        // SAFETY: the object is being freed: nobody else can reach it.
        if matches!(unsafe { self.state.alone() }, State::New) {
            never_awaited("StreamWriter.drain");
        }
    }
}
