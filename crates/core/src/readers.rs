//! `add_reader` and `add_writer`: level-triggered callbacks on file descriptors of the program's own.

use std::collections::HashMap;
use std::os::fd::RawFd;

use proact_driver::{Op, Token};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;

use crate::call::os_error;
use crate::cell::LoopCell;
use crate::handle::Handle;
use crate::io::{Io, Sent};
use crate::ready::Ready;
use crate::scheduler::Scheduler;
use crate::slots::Target;

#[pymethods]
impl Watch {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.handle.try_get().as_deref() {
            Some(Some(handle)) => handle.traverse(visit),
            _ => Ok(()),
        }
    }
}

/// A poll in flight and whom it calls.
#[pyclass(frozen, module = "proact._core")]
pub struct Watch {
    handle: LoopCell<Option<Ready>>,
}

impl Watch {
    /// The callback, if it is still there.
    pub fn current(&self, py: Python<'_>) -> PyResult<Option<Ready>> {
        Ok(match &*self.handle.get()? {
            Some(Ready::Native(handle)) => Some(Ready::Native(handle.clone_ref(py))),
            Some(Ready::Debug(handle)) => Some(Ready::Debug(handle.clone_ref(py))),
            _ => None,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Read,
    Write,
}

#[derive(Default)]
pub struct Readers(HashMap<(RawFd, Side), (Token, Py<Watch>)>);

impl Readers {
    /// Replaces the callback of one side of an fd, or begins to watch it.
    ///
    /// # Errors
    /// `OSError` where the engine can't watch the fd (`EBADF`; `EPERM` for regular files; `ERANGE` past FD_SETSIZE).
    pub fn add(
        &mut self,
        py: Python<'_>,
        io: &mut Io,
        fd: RawFd,
        side: Side,
        handle: Ready,
    ) -> PyResult<Option<Ready>> {
        // A new poll even where there is one: the number may name another file by now, closed behind our back.
        let previous = self.remove(io, fd, side)?;
        let watch = Py::new(
            py,
            Watch {
                handle: LoopCell::new(Some(handle)),
            },
        )?;
        let events = if side == Side::Read {
            libc::POLLIN
        } else {
            libc::POLLOUT
        } as u32;
        // SAFETY: a poll points at no memory.
        match unsafe { io.submit(Op::PollMulti { fd, events }, Target::Watch(watch.clone_ref(py))) } {
            Sent::Pending(token) => {
                self.0.insert((fd, side), (token, watch));
                Ok(previous)
            }
            Sent::Ready(error) => Err(os_error(error)),
        }
    }

    /// Stops watching; the handle that was called, if there was one.
    pub fn remove(&mut self, io: &mut Io, fd: RawFd, side: Side) -> PyResult<Option<Ready>> {
        let Some((token, watch)) = self.0.remove(&(fd, side)) else {
            return Ok(None);
        };
        io.cancel(token);
        let handle = watch.get().handle.get()?.take();
        Ok(handle)
    }

    pub fn watches(&self) -> impl Iterator<Item = &Py<Watch>> {
        self.0.values().map(|(_, watch)| watch)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What `fileno` raises is its own, unless it says that this is no file.
fn invalid(object: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = object.py();
    let known = error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py);
    if known {
        PyValueError::new_err(format!("Invalid file object: {object:?}"))
    } else {
        error
    }
}

/// The fd that an argument of `add_reader` and its like names.
pub fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd: RawFd = match object.extract() {
        Ok(fd) => fd,
        Err(_) => object
            .call_method0(intern!(object.py(), "fileno"))
            .and_then(|fd| fd.extract())
            .map_err(|error| invalid(object, error))?,
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {fd}")));
    }
    Ok(fd)
}

impl Scheduler {
    /// The program may not use the fd of a transport itself.
    #[inline]
    pub fn check_not_a_transport(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        if !self.io.get()?.is_owned(fd) {
            return Ok(());
        }
        let transport = match self.transport_of(py, fd)? {
            Some(transport) => transport.bind(py).repr()?.to_string(),
            None => String::new(),
        };
        Err(PyRuntimeError::new_err(format!(
            "File descriptor {fd} is used by transport {transport}"
        )))
    }
}

#[pymethods]
impl Scheduler {
    #[pyo3(name = "_watch")]
    fn watch(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        write: bool,
        handle: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let fd = descriptor(fd)?;
        let side = if write { Side::Write } else { Side::Read };
        let this = slf.get();
        this.check_closed()?;
        this.check_not_a_transport(slf.py(), fd)?;
        let ready = match handle.cast_into::<Handle>() {
            Ok(handle) => Ready::Native(handle.unbind()),
            Err(error) => Ready::Debug(error.into_inner().unbind()),
        };
        let previous = {
            let mut io = this.io.get()?;
            this.readers.get()?.add(slf.py(), &mut io, fd, side, ready)?
        };
        if let Some(previous) = previous {
            previous.object(slf.py()).call_method0(slf.py(), "cancel")?;
        }
        Ok(())
    }

    /// Calls back once, when the child process of a pidfd has ended; until then only `_close_fd` may close it.
    #[pyo3(name = "_watch_child")]
    fn watch_child(slf: &Bound<'_, Self>, pidfd: RawFd, handle: Py<Handle>) -> PyResult<()> {
        let this = slf.get();
        this.check_closed()?;
        let watch = Py::new(
            slf.py(),
            Watch {
                handle: LoopCell::new(Some(Ready::Native(handle))),
            },
        )?;
        let target = Target::Watch(watch.clone_ref(slf.py()));
        // SAFETY: the op points at no memory.
        match unsafe { this.io.get()?.submit(Op::WaitId { pidfd }, target) } {
            Sent::Ready(error) if error < 0 && error != -libc::ECHILD => return Err(os_error(error)),
            Sent::Ready(_) => this.push(Ready::Watch(watch)),
            Sent::Pending(_) => {}
        }
        Ok(())
    }

    /// Closes an fd that the loop has watched; what waits for it ends first.
    #[pyo3(name = "_close_fd")]
    fn close_fd(&self, fd: RawFd) -> PyResult<()> {
        self.io.get()?.close(fd).map_err(crate::call::io_error)
    }

    #[pyo3(name = "_unwatch")]
    fn unwatch(slf: &Bound<'_, Self>, fd: &Bound<'_, PyAny>, write: bool) -> PyResult<bool> {
        let this = slf.get();
        if this.is_closed() || this.is_forked() {
            return Ok(false);
        }
        let fd = descriptor(fd)?;
        this.check_not_a_transport(slf.py(), fd)?;
        let side = if write { Side::Write } else { Side::Read };
        let handle = {
            let mut io = this.io.get()?;
            this.readers.get()?.remove(&mut io, fd, side)?
        };
        match handle {
            Some(handle) => handle
                .object(slf.py())
                .call_method0(slf.py(), "cancel")
                .map(|_| true),
            None => Ok(false),
        }
    }
}
