//! Watched fds: a poll that stays in flight, and the callback it schedules.

use std::collections::HashMap;
use std::os::fd::RawFd;

use proact_driver::{Op, Token, ops};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::cell::LoopCell;
use crate::reactor::io::{Io, Sent};
use crate::reactor::ready::Ready;
use crate::reactor::slots::Target;

/// A poll in flight and whom it calls.
#[pyclass(frozen, module = "proact._core")]
pub struct Watch {
    handle: LoopCell<Option<Ready>>,
    /// What the program named: a socket that is closed by now is known by nothing else.
    file: Option<Py<PyAny>>,
}

#[pymethods]
impl Watch {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.file)?;
        match self.handle.try_get().as_deref() {
            Some(Some(handle)) => handle.traverse(visit),
            _ => Ok(()),
        }
    }
}

impl Watch {
    pub fn create(py: Python<'_>, handle: Ready, file: Option<Py<PyAny>>) -> PyResult<Py<Watch>> {
        let handle = LoopCell::new(Some(handle));
        Py::new(py, Watch { handle, file })
    }

    /// The callback, if it is still there.
    pub fn current(&self, py: Python<'_>) -> PyResult<Option<Ready>> {
        Ok(match &*self.handle.get()? {
            Some(Ready::Native(handle)) => Some(Ready::Native(handle.clone_ref(py))),
            Some(Ready::Debug(handle)) => Some(Ready::Debug(handle.clone_ref(py))),
            _ => None,
        })
    }

    /// It calls nobody from now on; the callback that it had.
    pub fn end(&self) -> PyResult<Option<Ready>> {
        Ok(self.handle.get()?.take())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Read,
    Write,
}

impl Side {
    pub fn of(write: bool) -> Side {
        if write { Side::Write } else { Side::Read }
    }

    pub fn events(self) -> u32 {
        match self {
            Side::Read => libc::POLLIN as u32,
            Side::Write => libc::POLLOUT as u32,
        }
    }
}

#[derive(Default)]
pub struct Readers(HashMap<(RawFd, Side), (Token, Py<Watch>)>);

impl Readers {
    pub fn watch(&self, py: Python<'_>, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        self.0.get(&(fd, side)).map(|(_, watch)| watch.clone_ref(py))
    }

    /// Begins to watch one side of an fd; the watch that it had. Nothing that is handed in or out is dropped here, where
    /// the caller holds guards. A refusal is the engine's result: `ERANGE` past FD_SETSIZE.
    pub fn add(
        &mut self,
        io: &mut Io,
        fd: RawFd,
        side: Side,
        (watch, target): (Py<Watch>, Py<Watch>),
    ) -> Result<Option<Py<Watch>>, (i32, Py<Watch>)> {
        // A new poll even where there is one: the number may name another file by now, closed behind our back.
        let previous = self.remove(io, fd, side);
        let events = side.events();
        // SAFETY: a poll points at no memory.
        match unsafe {
            io.submit(
                Op::PollMulti(ops::PollMulti { fd, events }),
                Target::Watch(target),
            )
        } {
            Sent::Pending(token) => {
                self.0.insert((fd, side), (token, watch));
                Ok(previous)
            }
            Sent::Ready(error) => Err((error, watch)),
        }
    }

    /// Stops watching; the watch that there was, for the caller to end.
    pub fn remove(&mut self, io: &mut Io, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        let (token, watch) = self.0.remove(&(fd, side))?;
        io.cancel(token);
        Some(watch)
    }

    /// The fd under which an object that is closed by now is watched.
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
