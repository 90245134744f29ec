//! Watched fds: each has a poll that stays in flight, and a callback that the poll schedules.

use std::collections::HashMap;
use std::os::fd::RawFd;

use proact_driver::{Op, Token, ops};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::cell::SharedCell;
use crate::py::method::Method;
use crate::reactor::fds::Side;
use crate::reactor::handle::Callback;
use crate::reactor::io::{Io, Sent};
use crate::reactor::ready::Ready;
use crate::reactor::target::{Completes, Target};

/// A poll in flight, and the callback that it schedules.
#[pyclass(frozen, module = "proact._core")]
pub struct Watch {
    callback: SharedCell<Option<Callback>>,
    /// The object that the program named: once its socket is closed, it can't be found by its fd.
    file: Option<Py<PyAny>>,
}

// ECHILD: the child has ended too, and somebody else has collected its status.
pub static WATCHES: Completes<Watch> = Completes::<Watch>::new(|watch, arrived| {
    if arrived.completion.result >= 0 || arrived.completion.result == -libc::ECHILD {
        arrived.ready.lock().push(Watch::due(watch.clone().unbind()));
    }
    Ok(())
});

#[pymethods]
impl Watch {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)?;
        match self.callback.look().as_deref() {
            Some(Some(callback)) => callback.traverse(visit),
            _ => Ok(()),
        }
    }
}

impl Watch {
    pub fn create(py: Python<'_>, callback: Callback, file: Option<Py<PyAny>>) -> PyResult<Py<Watch>> {
        let callback = SharedCell::new(Some(callback));
        Py::new(py, Watch { callback, file })
    }

    /// The entry in the ready queue. The callback is looked up when the entry runs, since the watch may have ended by then.
    pub fn due(watch: Py<Watch>) -> Ready {
        let current = |watch: &Bound<'_, Watch>| {
            let callback = watch.get().callback.lock();
            Ok(callback.as_ref().map(|callback| callback.clone_ref(watch.py())))
        };
        Ready::Method(Method::new(watch, current))
    }

    /// Ends the watch, and returns its callback.
    pub fn end(&self) -> Option<Callback> {
        self.callback.lock().take()
    }
}

#[derive(Default)]
pub struct Readers(HashMap<(RawFd, Side), (Token, Py<Watch>)>);

impl Readers {
    pub fn watch(&self, py: Python<'_>, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        self.0.get(&(fd, side)).map(|(_, watch)| watch.clone_ref(py))
    }

    /// Whether this is the watch of one side of an fd.
    pub fn is(&self, fd: RawFd, side: Side, watch: &Py<Watch>) -> bool {
        self.0.get(&(fd, side)).is_some_and(|(_, known)| known.is(watch))
    }

    /// Begins to watch one side of an fd, and returns the watch that it replaces. Nothing is dropped here, because the caller
    /// holds cells. An error is the engine's result: `ERANGE` for an fd above FD_SETSIZE.
    pub fn add(
        &mut self,
        io: &mut Io,
        fd: RawFd,
        side: Side,
        (watch, target): (Py<Watch>, Py<Watch>),
    ) -> Result<Option<Py<Watch>>, (i32, Py<Watch>)> {
        // Make a new poll even if there is one: the file may have been closed, and the number may name another file by now.
        let previous = self.remove(io, fd, side);
        let events = side.events();
        // SAFETY: a poll points at no memory.
        match unsafe {
            io.submit(
                Op::PollMulti(ops::PollMulti { fd, events }),
                Target::new(target, &WATCHES),
            )
        } {
            Sent::Pending(token) => {
                self.0.insert((fd, side), (token, watch));
                Ok(previous)
            }
            Sent::Ready(error) => Err((error, watch)),
        }
    }

    /// Stops watching, and returns the watch for the caller to end.
    pub fn remove(&mut self, io: &mut Io, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        let (token, watch) = self.0.remove(&(fd, side))?;
        io.cancel(token);
        Some(watch)
    }

    /// The fd under which an object is watched that is closed by now.
    pub fn number_of(&self, object: &Bound<'_, PyAny>, side: Side) -> Option<RawFd> {
        self.0.iter().find_map(|(&(fd, watched), (_, watch))| {
            let same = watch.get().file.as_ref().is_some_and(|file| file.is(object));
            (same && watched == side).then_some(fd)
        })
    }

    pub fn watches(&self) -> impl Iterator<Item = &Py<Watch>> {
        self.0.values().map(|(_, watch)| watch)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
