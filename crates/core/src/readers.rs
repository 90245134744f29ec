//! `add_reader` and `add_writer`: level-triggered callbacks on file descriptors of the program's own.

use std::collections::HashMap;
use std::os::fd::RawFd;

use proact_driver::{Op, Token};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::call::{current_context, os_error};
use crate::cell::LoopCell;
use crate::handle::Handle;
use crate::io::{Io, Sent};
use crate::make::{name, py_error};
use crate::ready::Ready;
use crate::scheduler::Scheduler;
use crate::slots::Target;

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
    fn create(py: Python<'_>, handle: Ready, file: Option<Py<PyAny>>) -> PyResult<Py<Watch>> {
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
    fn end(&self) -> PyResult<Option<Ready>> {
        Ok(self.handle.get()?.take())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Read,
    Write,
}

impl Side {
    fn of(write: bool) -> Side {
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
    fn watch(&self, py: Python<'_>, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        self.0.get(&(fd, side)).map(|(_, watch)| watch.clone_ref(py))
    }

    /// Begins to watch one side of an fd; the watch that it had. Nothing that is handed in or out is dropped here, where
    /// the caller holds guards. A refusal is the engine's result: `ERANGE` past FD_SETSIZE.
    fn add(
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
        match unsafe { io.submit(Op::PollMulti { fd, events }, Target::Watch(target)) } {
            Sent::Pending(token) => {
                self.0.insert((fd, side), (token, watch));
                Ok(previous)
            }
            Sent::Ready(error) => Err((error, watch)),
        }
    }

    /// Stops watching; the watch that there was, for the caller to end.
    fn remove(&mut self, io: &mut Io, fd: RawFd, side: Side) -> Option<Py<Watch>> {
        let (token, watch) = self.0.remove(&(fd, side))?;
        io.cancel(token);
        Some(watch)
    }

    /// The fd under which an object that is closed by now is watched.
    fn number_of(&self, object: &Bound<'_, PyAny>, side: Side) -> Option<RawFd> {
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

/// # Errors
/// `EBADF` for what is no open file, `EPERM` for files and directories, as epoll has it: a ring would tell of the one in the
/// next turn only, and would report the other for ever.
fn check_can_wait(fd: RawFd) -> PyResult<()> {
    // SAFETY: zeros are a value of struct stat.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a local struct.
    if unsafe { libc::fstat(fd, &raw mut status) } < 0 {
        return Err(os_error(-libc::EBADF));
    }
    match status.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFDIR => Err(os_error(-libc::EPERM)),
        _ => Ok(()),
    }
}

/// What `fileno` raises is its own, unless it says that this is no file.
fn invalid(object: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = object.py();
    let known = error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py);
    if known {
        py_error::<PyValueError>(format!("Invalid file object: {object:?}"))
    } else {
        error
    }
}

/// The fd that an argument of `add_reader` and its like names.
pub fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd: RawFd = match object.extract() {
        Ok(fd) => fd,
        Err(_) => object
            .call_method0(name!("fileno"))
            .and_then(|fd| fd.extract())
            .map_err(|error| invalid(object, error))?,
    };
    if fd < 0 {
        return Err(py_error::<PyValueError>(format!("Invalid file descriptor: {fd}")));
    }
    Ok(fd)
}

impl Scheduler {
    /// A watch that was removed: its handle is cancelled. True if it had one.
    fn end_watch(&self, py: Python<'_>, watch: &Py<Watch>) -> PyResult<bool> {
        let Some(handle) = watch.get().end()? else {
            return Ok(false);
        };
        handle.object(py).call_method0(py, name!("cancel"))?;
        Ok(true)
    }

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
        Err(py_error::<PyRuntimeError>(format!(
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
        let py = slf.py();
        let (file, fd) = (fd, descriptor(fd)?);
        let side = Side::of(write);
        let this = slf.get();
        this.check_closed()?;
        this.check_not_a_transport(py, fd)?;
        check_can_wait(fd)?;
        let ready = match handle.cast_into::<Handle>() {
            Ok(handle) => Ready::Native(handle.unbind()),
            Err(error) => Ready::Debug(error.into_inner().unbind()),
        };
        let watch = Watch::create(py, ready, Some(file.clone().unbind()))?;
        let target = watch.clone_ref(py);
        let added = {
            let (mut io, mut readers) = (this.io.get()?, this.readers.get()?);
            readers.add(&mut io, fd, side, (watch, target))
        };
        match added {
            Ok(Some(previous)) => this.end_watch(py, &previous).map(drop),
            Ok(None) => Ok(()),
            Err((error, _)) => Err(os_error(error)),
        }
    }

    /// Calls back once, when the child process of a pidfd has ended; until then only `_close_fd` may close it.
    #[pyo3(name = "_watch_child")]
    fn watch_child(slf: &Bound<'_, Self>, pidfd: RawFd, handle: Py<Handle>) -> PyResult<()> {
        let this = slf.get();
        this.check_closed()?;
        let watch = Watch::create(slf.py(), Ready::Native(handle), None)?;
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
        let py = slf.py();
        let (file, side) = (fd, Side::of(write));
        let fd = match descriptor(file) {
            Ok(fd) => fd,
            // Closed: asyncio's selectors look for the object then.
            Err(error) => this.readers.get()?.number_of(file, side).ok_or(error)?,
        };
        if this.io.try_get().is_none() {
            // Another thread's finaliser, most likely. The callback is not called any more, and the loop's thread does the rest.
            let Some(watch) = this.readers.get()?.watch(py, fd, side) else {
                return Ok(false);
            };
            let again = slf.getattr(name!("_unwatch"))?.unbind();
            let args = (file, write).into_pyobject(py)?.unbind();
            this.soon(py, again, args, current_context(py)?)?;
            this.wake();
            return this.end_watch(py, &watch);
        }
        this.check_not_a_transport(py, fd)?;
        let watch = {
            let (mut io, mut readers) = (this.io.get()?, this.readers.get()?);
            let watch = readers.remove(&mut io, fd, side);
            if watch.is_some() {
                // A ring's poll keeps the file open: whoever waits for its end sees it now. An error shows with the next wait.
                let _ = io.driver.flush();
            }
            watch
        };
        match watch {
            Some(watch) => this.end_watch(py, &watch),
            None => Ok(false),
        }
    }
}
