//! `await loop.sock_recv(...)`: one awaitable, one wake-up of the task, no coroutine in between.
//!
//! An `Operation` has the methods of a coroutine, and like one it begins with its first step. On a socket a poll tells
//! when it is ready, and the task that goes on then makes the call. So whatever is taken from a socket is taken in a step
//! of the task that gets it: a cancelled operation has taken nothing, on every engine. What is sent is tried in the first
//! step already, and goes on without its task until everything is out. An operation on a file is an op of the engine's.
//!
//! ```text
//! New ──step──▶ InFlight ──completion──▶ Woken ──step──▶ Spent, or InFlight again
//!  │             ▲    │                  Done ──step──▶ Spent
//!  ├──step──▶ Queued  └──throw, close──▶ Abandoned ──completion──▶ Spent
//!  └──step──▶ Spent
//! ```

use std::os::fd::RawFd;

use proact_driver::{Op, Token, ops, syscalls};
use pyo3::IntoPyObjectExt;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::buffer::Buffer;
use crate::py::call::{method0, method1};
use crate::py::cell::LoopCell;
use crate::py::descriptor::{descriptor, number};
use crate::py::errno::os_error;
use crate::py::make::{Int, name, py_error, tuple};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::slots::Target;
use crate::reactor::watch::Side;
use crate::reactor::work::{FileWork, Work, socket_fd};

enum State {
    New(Work),
    /// The poll, or a file's op, is with the engine.
    InFlight {
        token: Token,
        fd: RawFd,
        work: Work,
        future: Py<PyAny>,
    },
    /// Others are before it on this side of the socket.
    Queued {
        fd: RawFd,
        work: Work,
        future: Py<PyAny>,
    },
    /// The socket is ready: the task tries next.
    Woken {
        fd: RawFd,
        work: Work,
    },
    Done(PyResult<Py<PyAny>>),
    /// Nobody waits any more.
    Abandoned(Left),
    Spent,
}

/// From so many bytes on a receive says that its peer sends in bulk.
const BULK: usize = 16 * 1024;

/// What the engine still has of an operation.
enum Left {
    Poll(RawFd, Side),
    /// Its memory lives on until the terminal completion.
    File(#[expect(dead_code, reason = "held, not looked at")] FileWork),
}

/// An awaitable operation on a socket or a file.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Operation {
    scheduler: Py<Scheduler>,
    /// The object whose fd is used: by it an operation is known whose fd was closed behind its back (`Io::evict`).
    object: Py<PyAny>,
    state: LoopCell<State>,
}

/// How a step of the task ended.
enum Step {
    Finished(Py<PyAny>),
    /// The future to wait for.
    Waits(Py<PyAny>),
}

impl Left {
    /// What the engine has of an operation's work while it is in flight.
    fn of(work: Work, fd: RawFd) -> Left {
        match work {
            Work::File(work) => Left::File(work),
            work => Left::Poll(fd, work.side()),
        }
    }
}

impl Operation {
    pub fn new(
        scheduler: &Bound<'_, Scheduler>,
        object: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Py<Operation>> {
        let operation = Operation {
            scheduler: scheduler.clone().unbind(),
            object: object.clone().unbind(),
            state: LoopCell::new(State::New(work)),
        };
        Py::new(scheduler.py(), operation)
    }

    /// Exchanges the state. What is returned is dropped, or not, without a guard.
    fn turn_to(&self, state: State) -> PyResult<State> {
        Ok(std::mem::replace(&mut *self.state.get()?, state))
    }

    /// The first step.
    fn begin(slf: &Bound<'_, Self>, mut work: Work) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.scheduler.bind(py);
        if let Work::File(work) = work {
            return Operation::begin_file(slf, work);
        }
        let fd = socket_fd(scheduler, this.object.bind(py))?;
        if let Work::ReceiveInto { buffer } = &work {
            // What can't be received into is told now, and not when something comes.
            drop(Buffer::room(buffer.bind(py))?);
        }
        // A receive is never done in its first step: a task that is cancelled right after that has taken nothing.
        let (is_free, is_bulk) = {
            let fds = &mut scheduler.get().io.get()?.fds;
            (fds.is_free(fd, work.side()), fds.is_bulk(fd))
        };
        match work.side() {
            Side::Write if is_free => {
                if let Some(value) = work.attempt(scheduler, fd)? {
                    return Ok(Step::Finished(value));
                }
            }
            // There is more most likely: the engine need not watch for it.
            Side::Read if is_free && is_bulk && syscalls::poll_now(fd, Side::Read.events()) >= 0 => {
                let future = this.new_future(py)?;
                this.turn_to(State::Woken { fd, work })?;
                this.wake(py, &future)?;
                return Ok(Step::Waits(future));
            }
            _ => {}
        }
        Operation::wait(slf, fd, work, false)
    }

    fn begin_file(slf: &Bound<'_, Self>, work: FileWork) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.scheduler.get();
        scheduler.check_closed()?;
        let fd = descriptor(this.object.bind(py))?;
        let future = this.new_future(py)?;
        let target = Target::Operation(slf.clone().unbind());
        let result = {
            let (mut state, mut io) = (this.state.get()?, scheduler.io.get()?);
            // SAFETY: the work goes into this operation's state below and stays there until the terminal completion;
            // its memory is on the heap and does not move with it. Nothing fails in between.
            match unsafe { io.submit(work.op(fd), target) } {
                Sent::Pending(token) => {
                    *state = State::InFlight {
                        token,
                        fd,
                        work: Work::File(work),
                        future: future.clone_ref(py),
                    };
                    return Ok(Step::Waits(future));
                }
                Sent::Ready(result) => result,
            }
        };
        file_outcome(py, &work, result).map(Step::Finished)
    }

    /// What the task that awaits is to wait for.
    fn new_future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let future = Scheduler::create_future(self.scheduler.bind(py))?;
        future.setattr(name!("_asyncio_future_blocking"), true)?;
        Ok(future.unbind())
    }

    /// Waits until the socket is ready, behind the others that wait for that, or `in_front` of them.
    fn wait(slf: &Bound<'_, Self>, fd: RawFd, work: Work, in_front: bool) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let future = this.new_future(py)?;
        let given = future.clone_ref(py);
        match this.poll(py, slf.as_unbound(), fd, work, given, in_front)? {
            None => Ok(Step::Waits(future)),
            Some((result, _)) => Err(os_error(result)),
        }
    }

    /// Has the engine poll, or lines up. If the engine refuses, the work is over; why, and the future that is to know.
    fn poll(
        &self,
        py: Python<'_>,
        this: &Py<Operation>,
        fd: RawFd,
        work: Work,
        future: Py<PyAny>,
        in_front: bool,
    ) -> PyResult<Option<(i32, Py<PyAny>)>> {
        let side = work.side();
        let (mut state, mut io) = (self.state.get()?, self.scheduler.get().io.get()?);
        if io.fds.is_polled(fd, side) {
            io.fds.line_up(fd, side, this.clone_ref(py), in_front);
            *state = State::Queued { fd, work, future };
            return Ok(None);
        }
        let events = side.events();
        // SAFETY: a poll points at no memory.
        match unsafe {
            io.submit(
                Op::Poll(ops::Poll { fd, events }),
                Target::Operation(this.clone_ref(py)),
            )
        } {
            Sent::Pending(token) => {
                io.fds.set_polled(fd, side, true);
                *state = State::InFlight {
                    token,
                    fd,
                    work,
                    future,
                };
                Ok(None)
            }
            Sent::Ready(result) => Ok(Some((result, future))),
        }
    }

    fn wake(&self, py: Python<'_>, future: &Py<PyAny>) -> PyResult<()> {
        match method1(future.bind(py), name!("set_result"), py.None().bind(py)) {
            // Cancelled in this turn: its task will say so through `throw`.
            Err(_) if method0(future.bind(py), name!("done"))?.is_truthy()? => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Whether it uses this fd, but as another object's.
    pub fn is_stale(&self, fd: RawFd, object: *mut ffi::PyObject) -> bool {
        let other = self.object.as_ptr() != object;
        let state = self.state.try_get();
        other && matches!(state.as_deref(), Some(State::InFlight { fd: used, .. }) if *used == fd)
    }

    /// The terminal completion. What goes wrong is told to the loop's exception handler, and ends nothing else.
    pub fn completed(&self, py: Python<'_>, this: &Py<Operation>, result: i32) -> PyResult<()> {
        match self.complete(py, this, result) {
            Err(error) => Scheduler::report(self.scheduler.bind(py), "An operation could not go on", error),
            Ok(()) => Ok(()),
        }
    }

    fn complete(&self, py: Python<'_>, this: &Py<Operation>, result: i32) -> PyResult<()> {
        let (fd, side) = match self.turn_to(State::Spent)? {
            State::InFlight {
                work: Work::File(work),
                future,
                ..
            } => {
                self.turn_to(State::Done(file_outcome(py, &work, result)))?;
                return self.wake(py, &future);
            }
            State::InFlight { fd, work, future, .. } => {
                let side = work.side();
                self.scheduler.get().io.get()?.fds.set_polled(fd, side, false);
                if result < 0 {
                    self.turn_to(State::Done(Err(os_error(result))))?;
                    self.wake(py, &future)?;
                } else if self.ready(py, this, fd, work, future)? {
                    return Ok(());
                }
                (fd, side)
            }
            State::Abandoned(Left::Poll(fd, side)) => {
                self.scheduler.get().io.get()?.fds.set_polled(fd, side, false);
                (fd, side)
            }
            State::Abandoned(Left::File(_)) => return Ok(()),
            other => {
                self.turn_to(other)?;
                return Ok(());
            }
        };
        self.call_next(py, fd, side)
    }

    /// The socket is ready. True if it must be waited for again: of a send more is left.
    fn ready(
        &self,
        py: Python<'_>,
        this: &Py<Operation>,
        fd: RawFd,
        mut work: Work,
        future: Py<PyAny>,
    ) -> PyResult<bool> {
        let goes_on = matches!(work, Work::Send { .. })
            && !method0(future.bind(py), name!("done"))?.is_truthy()?
            && number(self.object.bind(py))? == fd;
        if !goes_on {
            self.turn_to(State::Woken { fd, work })?;
            self.wake(py, &future)?;
            return Ok(false);
        }
        let (outcome, future) = match work.attempt(self.scheduler.bind(py), fd) {
            Ok(None) => match self.poll(py, this, fd, work, future, true)? {
                None => return Ok(true),
                Some((result, future)) => (Err(os_error(result)), future),
            },
            Ok(Some(value)) => (Ok(value), future),
            Err(error) => (Err(error), future),
        };
        self.turn_to(State::Done(outcome))?;
        self.wake(py, &future)?;
        Ok(false)
    }

    /// A poll has ended: whoever is next on this side of the socket waits for it now.
    fn call_next(&self, py: Python<'_>, fd: RawFd, side: Side) -> PyResult<()> {
        loop {
            let next = self.scheduler.get().io.get()?.fds.next(fd, side);
            let Some(next) = next else { return Ok(()) };
            let this = next.get();
            let (work, future) = match this.turn_to(State::Spent)? {
                State::Queued { work, future, .. } => (work, future),
                other => {
                    this.turn_to(other)?;
                    continue;
                }
            };
            let is_open = number(this.object.bind(py)).is_ok_and(|number| number == fd);
            let (result, future) = if is_open {
                match this.poll(py, &next, fd, work, future, true)? {
                    None => return Ok(()),
                    Some(refused) => refused,
                }
            } else {
                (-libc::EBADF, future)
            };
            this.turn_to(State::Done(Err(os_error(result))))?;
            this.wake(py, &future)?;
        }
    }

    /// Nobody waits for it any more: the engine is asked to end it.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        // What is dropped here is dropped without a guard.
        let (dropped, future) = match self.turn_to(State::Spent)? {
            State::InFlight {
                token,
                fd,
                work,
                future,
            } => {
                let side = work.side();
                let (left, work) = match work {
                    Work::File(_) => (Left::of(work, fd), None),
                    _ => (Left::Poll(fd, side), Some(work)),
                };
                let is_poll = work.is_some();
                self.turn_to(State::Abandoned(left))?;
                // A loop that is at work in another thread, or closed, is not asked: the op ends by itself.
                if let Some(mut io) = self.scheduler.get().io.try_get() {
                    io.cancel(token);
                    if is_poll {
                        // Whoever closes the socket next has its peer see that. An error shows with the next wait.
                        let _ = io.driver.flush();
                    }
                }
                (work, Some(future))
            }
            State::Queued { fd, work, future } => {
                let io = self.scheduler.get().io.try_get();
                let left = io.and_then(|mut io| io.fds.leave(fd, work.side(), self));
                drop(left);
                (Some(work), Some(future))
            }
            abandoned @ State::Abandoned(_) => {
                self.turn_to(abandoned)?;
                (None, None)
            }
            State::New(work) | State::Woken { work, .. } => (Some(work), None),
            State::Done(_) | State::Spent => (None, None),
        };
        drop((dropped, future));
        let _ = py;
        Ok(())
    }

    fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        // Refused in another thread than the loop's while that is at work, with nothing changed.
        drop(this.scheduler.get().io.get()?);
        match this.turn_to(State::Spent)? {
            State::New(work) => Operation::begin(slf, work),
            State::Woken { fd, mut work } => {
                if number(this.object.bind(py))? != fd {
                    return Err(os_error(-libc::EBADF));
                }
                match work.attempt(this.scheduler.bind(py), fd)? {
                    Some(value) => {
                        if let Some(count) = work.received(value.bind(py)) {
                            this.scheduler.get().io.get()?.fds.set_bulk(fd, count >= BULK);
                        }
                        Ok(Step::Finished(value))
                    }
                    // Somebody else was quicker.
                    None => Operation::wait(slf, fd, work, true),
                }
            }
            State::Done(outcome) => outcome.map(Step::Finished),
            State::Spent => Err(py_error::<PyRuntimeError>(
                "cannot reuse already awaited operation",
            )),
            abandoned @ State::Abandoned(_) => {
                this.turn_to(abandoned)?;
                Err(py_error::<PyRuntimeError>(
                    "cannot reuse already awaited operation",
                ))
            }
            waiting => {
                this.turn_to(waiting)?;
                Err(py_error::<PyRuntimeError>(
                    "the operation is being awaited already",
                ))
            }
        }
    }
}

fn file_outcome(py: Python<'_>, work: &FileWork, result: i32) -> PyResult<Py<PyAny>> {
    match work {
        _ if result < 0 => Err(os_error(result)),
        FileWork::Sync { .. } => Ok(py.None()),
        FileWork::Read { .. } | FileWork::Write { .. } => Int::new(result).into_py_any(py),
    }
}

/// Sets `StopIteration(value)`, without an object for it where that can be had.
fn set_stop_iteration(value: &Bound<'_, PyAny>) {
    let py = value.py();
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyBaseException>() {
        return match tuple(py, std::slice::from_ref(value)) {
            Ok(args) => PyStopIteration::new_err(args.unbind()).restore(py),
            Err(error) => error.restore(py),
        };
    }
    // SAFETY: two live objects. A value that is neither a tuple nor an exception is the only argument.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
}

#[pymethods]
impl Operation {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.object)?;
        match self.state.try_get().as_deref() {
            Some(State::InFlight { work, future, .. } | State::Queued { work, future, .. }) => {
                visit.call(future)?;
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
            Step::Waits(future) => Ok(Some(future)),
            Step::Finished(value) => {
                // The slot of `__next__` lets an exception through that is set already.
                set_stop_iteration(value.bind(slf.py()));
                Ok(None)
            }
        }
    }

    fn send(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        match Operation::step(slf)? {
            Step::Waits(future) => Ok(future),
            Step::Finished(value) => {
                set_stop_iteration(value.bind(slf.py()));
                Err(PyErr::fetch(slf.py()))
            }
        }
    }

    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        &self,
        py: Python<'_>,
        kind: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.abandon(py)?;
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

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.abandon(py)
    }
}
