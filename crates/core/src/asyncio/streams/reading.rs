//! `await reader.read(n)` and its like: one awaitable, and no coroutine where the bytes are there.
//!
//! A `Reading` has the methods of a coroutine, and begins with its first step. It does what asyncio's coroutine does as long as
//! bytes come and go. Wherever that would raise, or meets the end of the stream, nothing was taken yet, and asyncio's own
//! coroutine is begun in its place.
//!
//! ```text
//! New ──step──▶ Waits ──step──▶ Spent, or Waits again
//!  ├──step──▶ Spent    └──step──▶ Instead
//!  └──step──▶ Instead ──step, throw, close──▶ Instead: as that coroutine does
//! ```

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::state::{self, StreamState};
use super::{READER, awaited_already, original};
use crate::py::call::method0;
use crate::py::cell::SharedCell;
use crate::py::coroutine::{Step, coroutine_methods, never_awaited, step_instead};
use crate::py::make::{Int, Text, name};
use crate::reactor::waiter::{Waiter, is_done};

/// What is to be read.
pub enum Want {
    Some(usize),
    Exactly(usize),
    /// Until this separator, or the end of a line.
    Until(Option<Py<PyBytes>>),
    Line,
}

enum State {
    New,
    /// So many bytes at the beginning have no separator. The future that this read waits for: the stream may have another one since
    /// this was woken.
    Waits(usize, Py<PyAny>),
    Instead(Py<PyAny>),
    Spent,
}

/// What the state says.
enum Found {
    /// So many bytes are to be taken.
    Here(usize),
    /// More are needed; so many of those that are there need not be looked at again.
    Missing(usize),
    /// The end, or too long a line.
    Unusual,
}

/// An awaitable read of a stream.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Reading {
    reader: Py<PyAny>,
    stream: Py<StreamState>,
    want: Want,
    state: SharedCell<State>,
}

impl Want {
    fn qualname(&self) -> String {
        let name = match self {
            Want::Some(_) => "read",
            Want::Exactly(_) => "readexactly",
            Want::Until(_) => "readuntil",
            Want::Line => "readline",
        };
        format!("StreamReader.{name}")
    }

    /// asyncio's own coroutine.
    fn original<'py>(&self, reader: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = reader.py();
        match self {
            Want::Some(n) => original(
                &READER,
                reader,
                name!("read"),
                Some(Int::new(*n).into_pyobject(py)?.as_any()),
            ),
            Want::Exactly(n) => {
                let count = Int::new(*n).into_pyobject(py)?;
                original(&READER, reader, name!("readexactly"), Some(count.as_any()))
            }
            Want::Until(None) => original(&READER, reader, name!("readuntil"), None),
            Want::Until(Some(separator)) => original(
                &READER,
                reader,
                name!("readuntil"),
                Some(separator.bind(py).as_any()),
            ),
            Want::Line => original(&READER, reader, name!("readline"), None),
        }
    }
}

/// Has a transport that was paused go on, unless more than `most` is there.
fn resume(py: Python<'_>, stream: &StreamState, most: usize) -> PyResult<()> {
    match stream.to_resume(py, most) {
        Some(transport) => method0(transport.bind(py), name!("resume_reading")).map(drop),
        None => Ok(()),
    }
}

impl Reading {
    pub fn begin(reader: &Bound<'_, PyAny>, want: Want) -> PyResult<Py<PyAny>> {
        let reading = Reading {
            stream: state::of(reader)?.unbind(),
            reader: reader.clone().unbind(),
            want,
            state: SharedCell::new(State::New),
        };
        Ok(Py::new(reader.py(), reading)?.into_any())
    }

    fn turn_to(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock(), state)
    }

    /// Whether there is enough. `woken`: a wait has ended.
    fn look(&self, py: Python<'_>, scanned: usize, woken: bool) -> Found {
        let stream = self.stream.get();
        let len = stream.len(py);
        let separator: &[u8] = match &self.want {
            // As in asyncio, a wait that has ended is enough, even if another coroutine was faster.
            Want::Some(n) if len > 0 || woken => return Found::Here(len.min(*n)),
            Want::Exactly(n) if len >= *n => return Found::Here(*n),
            Want::Some(_) | Want::Exactly(_) => b"",
            Want::Until(Some(separator)) => separator.as_bytes(py),
            Want::Until(None) | Want::Line => b"\n",
        };
        let mut scanned = scanned;
        if !separator.is_empty() && len >= scanned + separator.len() {
            let limit = stream.limit();
            match stream.find(py, separator, scanned) {
                Some(at) if at > limit => return Found::Unusual,
                Some(at) => return Found::Here(at + separator.len()),
                None => scanned = len + 1 - separator.len(),
            }
            if scanned > limit {
                return Found::Unusual;
            }
        }
        match stream.has_ended() {
            true => Found::Unusual,
            false => Found::Missing(scanned),
        }
    }

    /// Reads, or begins to wait.
    fn go_on(slf: &Bound<'_, Self>, scanned: usize, woken: bool) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let stream = this.stream.get();
        if !woken && stream.has_failed() {
            return Reading::instead(slf, woken);
        }
        match this.look(py, scanned, woken) {
            Found::Here(count) => {
                let bytes = stream.take(py, count)?;
                resume(py, stream, stream.limit())?;
                Ok(Step::Finished(bytes.into_any().unbind()))
            }
            Found::Missing(scanned) if !stream.is_waited_for() => {
                // A stream that is paused while somebody waits for it would wait for ever.
                resume(py, stream, usize::MAX)?;
                let waiter = Waiter::task(stream.scheduler(py))?;
                let yields = waiter.yields(py);
                stream.set_waiter(Some(yields.clone_ref(py)));
                this.turn_to(State::Waits(scanned, yields.clone_ref(py)));
                Ok(Step::Waits(yields))
            }
            Found::Missing(_) | Found::Unusual => Reading::instead(slf, woken),
        }
    }

    /// Has asyncio's own coroutine do it from the beginning: nothing was taken.
    #[cold]
    fn instead(slf: &Bound<'_, Self>, woken: bool) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let reader = this.reader.bind(py);
        let coroutine = this.want.original(reader)?;
        this.turn_to(State::Instead(coroutine.clone().unbind()));
        let stream = this.stream.get();
        let error = stream.exception(py).filter(|_| woken);
        if error.is_none() {
            return step_instead(&coroutine);
        }
        // The connection has failed since this was woken. asyncio looks for that when a read begins, and not after its wait.
        stream.set_exception(None);
        let begun = step_instead(&coroutine);
        stream.set_exception(error);
        begun
    }

    fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let _claim = this.stream.get().scheduler(py).get().claim()?;
        match this.turn_to(State::Spent) {
            State::New => Reading::go_on(slf, 0, false),
            State::Waits(scanned, waiter) => {
                if !is_done(waiter.bind(py))? {
                    // A step that nobody has asked for.
                    this.turn_to(State::Waits(scanned, waiter.clone_ref(py)));
                    return Ok(Step::Waits(waiter));
                }
                // Also if another reader has begun to wait since, as in asyncio.
                this.stream.get().set_waiter(None);
                Reading::go_on(slf, scanned, true)
            }
            State::Instead(coroutine) => {
                this.turn_to(State::Instead(coroutine.clone_ref(py)));
                step_instead(coroutine.bind(py))
            }
            State::Spent => Err(awaited_already()),
        }
    }

    /// Ends without a result. Returns the coroutine that runs in its place.
    fn end<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        match this.turn_to(State::Spent) {
            State::Waits(..) => {
                this.stream.get().set_waiter(None);
                None
            }
            State::Instead(coroutine) => {
                this.turn_to(State::Instead(coroutine.clone_ref(py)));
                Some(coroutine.into_bound(py))
            }
            State::New | State::Spent => None,
        }
    }
}

coroutine_methods!(Reading);

#[pymethods]
impl Reading {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reader)?;
        visit.call(&self.stream)?;
        match self.state.look().as_deref() {
            Some(State::Instead(waits_for) | State::Waits(_, waits_for)) => visit.call(waits_for),
            _ => Ok(()),
        }
    }

    #[getter]
    fn __qualname__(&self) -> Text<String> {
        Text(self.want.qualname())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // SAFETY: the object is being freed: nobody else can reach it.
        match unsafe { self.state.alone() } {
            State::New => never_awaited(&self.want.qualname()),
            State::Waits(..) => self.stream.get().set_waiter(None),
            _ => {}
        }
    }
}
