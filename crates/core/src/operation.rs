//! `await loop.sock_recv(...)`: one op, one awaitable, one wake-up of the task, no coroutine in between.
//!
//! An `Operation` begins when it is made. Awaited when it is done already, it does not suspend. It has the methods of a
//! coroutine, so that `create_task` takes it, and learns through `throw` that its task was cancelled.

use std::os::fd::RawFd;

use proact_driver::{Op, Token, syscalls};
use pyo3::IntoPyObjectExt;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBlockingIOError, PyOSError, PyRuntimeError, PyStopIteration};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::call::{bytes_memory, method1, os_error};
use crate::cell::LoopCell;
use crate::ending::finalise;
use crate::files::FileWork;
use crate::io::{Io, Sent};
use crate::scheduler::Scheduler;
use crate::slots::Target;

/// What is being done, and the memory it is done in.
pub enum Work {
    /// A receive into a `bytes` that nobody has seen yet.
    Receive {
        fd: RawFd,
        bytes: Py<PyBytes>,
        len: usize,
    },
    /// A wait until a socket is readable (`POLLIN`) or writable (`POLLOUT`). `then` makes the result once the task goes
    /// on: whatever it takes from the socket is taken by somebody who is there to have it.
    Ready {
        fd: RawFd,
        events: i16,
        then: Py<PyAny>,
    },
    /// A send of what is left of a buffer that stays exported until the end.
    Send {
        fd: RawFd,
        buffer: Buffer,
        sent: usize,
    },
    Connect {
        fd: RawFd,
        address: Box<Address>,
        shown: Py<PyAny>,
    },
    File {
        fd: RawFd,
        work: FileWork,
    },
}

enum State {
    /// In flight; the future appears when somebody awaits.
    Pending {
        token: Token,
        work: Work,
        future: Option<Py<PyAny>>,
    },
    /// A receive that waits until a cancelled one on the same socket has gone.
    Queued {
        work: Work,
        future: Option<Py<PyAny>>,
    },
    Done(PyResult<Py<PyAny>>),
    /// The socket is ready: whoever awaits tries next.
    Try {
        work: Work,
    },
    /// Nobody waits any more; the work lives on until its terminal completion.
    Abandoned {
        work: Work,
    },
    Spent,
}

/// An awaitable operation on a socket or a file.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Operation {
    scheduler: Py<Scheduler>,
    /// The object whose fd is used: by it an operation is known whose fd was closed behind its back (`Io::evict`).
    pub socket: Option<Py<PyAny>>,
    /// The socket whose bytes must not be lost when a receive is cancelled.
    receives: Option<RawFd>,
    state: LoopCell<State>,
}

impl Work {
    fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Work::Ready { then, .. } = self {
            visit.call(then)
        } else {
            Ok(())
        }
    }

    pub fn fd(&self) -> RawFd {
        match self {
            Work::Receive { fd, .. }
            | Work::Ready { fd, .. }
            | Work::Send { fd, .. }
            | Work::Connect { fd, .. }
            | Work::File { fd, .. } => *fd,
        }
    }

    /// The op that carries the work on.
    fn op(&self, py: Python<'_>) -> Op {
        match self {
            Work::Receive { fd, bytes, len } => Op::Recv {
                fd: *fd,
                buf: bytes_memory(bytes.bind(py)),
                len: *len,
                flags: 0,
            },
            Work::Ready { fd, events, .. } => Op::Poll {
                fd: *fd,
                events: *events as u32,
            },
            Work::Send { fd, buffer, sent } => Op::Send {
                fd: *fd,
                buf: buffer.ptr().wrapping_add(*sent),
                len: buffer.len() - sent,
                flags: libc::MSG_WAITALL,
            },
            Work::Connect { fd, address, .. } => Op::Connect {
                fd: *fd,
                addr: (&raw const address.storage).cast(),
                len: address.len,
            },
            Work::File { fd, work } => work.op(*fd),
        }
    }
}

/// How a step of the work ended.
enum Step {
    Finished(PyResult<Py<PyAny>>),
    /// Another op is needed.
    Again(Work),
    /// The task that waits must try for itself.
    Try(Work),
}

impl Work {
    /// What a result means.
    fn advance(self, py: Python<'_>, scheduler: &Scheduler, result: i32) -> Step {
        match self {
            Work::Receive { bytes, .. } if result >= 0 => {
                let settled = scheduler
                    .io
                    .get()
                    .and_then(|mut io| io.buffers.settle(bytes.into_bound(py), result as usize));
                Step::Finished(settled.map(Py::into_any))
            }
            Work::Ready { .. } if result >= 0 => Step::Try(self),
            Work::Send { fd, buffer, sent } if result >= 0 => {
                let sent = sent + result as usize;
                if sent >= buffer.len() {
                    Step::Finished(Ok(py.None()))
                } else {
                    Step::Again(Work::Send { fd, buffer, sent })
                }
            }
            Work::Connect { .. }
            | Work::File {
                work: FileWork::Sync { .. },
                ..
            } if result >= 0 => Step::Finished(Ok(py.None())),
            Work::File { .. } if result >= 0 => Step::Finished(result.into_py_any(py)),
            // A Unix socket's connect answers at once.
            Work::Connect { address, .. } if address.family() == libc::AF_UNIX => {
                Step::Finished(Err(os_error(result)))
            }
            Work::Connect { shown, .. } => {
                let message = format!("Connect call failed {}", shown.bind(py));
                Step::Finished(Err(PyOSError::new_err((-result, message))))
            }
            _ => Step::Finished(Err(os_error(result))),
        }
    }
}

impl Operation {
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        socket: Option<&Bound<'_, PyAny>>,
        receives: Option<RawFd>,
        state: State,
    ) -> PyResult<Py<Operation>> {
        let operation = Operation {
            scheduler: scheduler.clone().unbind(),
            socket: socket.map(|socket| socket.clone().unbind()),
            receives,
            state: LoopCell::new(state),
        };
        Py::new(scheduler.py(), operation)
    }

    pub fn done(scheduler: &Bound<'_, Scheduler>, outcome: PyResult<Py<PyAny>>) -> PyResult<Py<Operation>> {
        Operation::new(scheduler, None, None, State::Done(outcome))
    }

    /// Begins the work.
    pub fn start(
        scheduler: &Bound<'_, Scheduler>,
        socket: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Py<Operation>> {
        let receives = if let Work::Receive { fd, .. } = work {
            Some(fd)
        } else {
            None
        };
        let operation = Operation::new(scheduler, Some(socket), receives, State::Spent)?;
        if let Some(fd) = receives
            && let Some(heirs) = scheduler.get().io.get()?.leaving.heirs(fd)
        {
            heirs.push(operation.clone_ref(scheduler.py()));
            *operation.get().state.get()? = State::Queued { work, future: None };
            return Ok(operation);
        }
        operation.get().carry_on(scheduler.py(), &operation, work, None)?;
        Ok(operation)
    }

    /// Submits the work's next op, again and again while it is done at once.
    fn carry_on(
        &self,
        py: Python<'_>,
        this: &Py<Operation>,
        mut work: Work,
        future: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        loop {
            let sent = {
                let mut io = self.scheduler.get().io.get()?;
                // SAFETY: the work goes into this operation's state below and stays there until the terminal
                // completion; its memory is on the heap and does not move with it.
                unsafe { io.submit(work.op(py), Target::Operation(this.clone_ref(py))) }
            };
            match sent {
                Sent::Pending(token) => {
                    *self.state.get()? = State::Pending { token, work, future };
                    return Ok(());
                }
                Sent::Ready(result) => {
                    let state = match work.advance(py, self.scheduler.get(), result) {
                        Step::Again(next) => {
                            work = next;
                            continue;
                        }
                        Step::Finished(outcome) => State::Done(outcome),
                        Step::Try(work) => State::Try { work },
                    };
                    *self.state.get()? = state;
                    return self.wake(py, future);
                }
            }
        }
    }

    /// What the task that awaits is to wait for.
    fn new_future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let future = Scheduler::create_future(self.scheduler.bind(py))?;
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future.unbind())
    }

    fn wake(&self, py: Python<'_>, future: Option<Py<PyAny>>) -> PyResult<()> {
        let Some(future) = future else { return Ok(()) };
        match method1(future.bind(py), intern!(py, "set_result"), py.None().bind(py)) {
            // Cancelled in this turn: its task will say so through `throw`.
            Err(_) if future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Whether it uses this fd, but as another object's.
    pub fn is_stale(&self, fd: RawFd, socket: *mut pyo3::ffi::PyObject) -> bool {
        let other = self.socket.as_ref().is_some_and(|own| own.as_ptr() != socket);
        let work = self.state.try_get();
        other && matches!(work.as_deref(), Some(State::Pending { work, .. }) if work.fd() == fd)
    }

    /// The terminal completion.
    pub fn completed(&self, py: Python<'_>, this: &Py<Operation>, result: i32) -> PyResult<()> {
        let state = std::mem::replace(&mut *self.state.get()?, State::Spent);
        match state {
            State::Pending { work, future, .. } => match work.advance(py, self.scheduler.get(), result) {
                Step::Again(work) => self.carry_on(py, this, work, future),
                Step::Finished(outcome) => {
                    *self.state.get()? = State::Done(outcome);
                    self.wake(py, future)
                }
                Step::Try(work) => {
                    *self.state.get()? = State::Try { work };
                    self.wake(py, future)
                }
            },
            State::Abandoned { work } => {
                if let Step::Finished(Ok(value)) = work.advance(py, self.scheduler.get(), result) {
                    self.keep(py, value, false)?;
                }
                let Some(fd) = self.receives else { return Ok(()) };
                let heirs = self.scheduler.get().io.get()?.leaving.end(fd);
                heirs
                    .into_iter()
                    .try_for_each(|heir| heir.get().proceed(py, &heir))
            }
            other => {
                *self.state.get()? = other;
                Ok(())
            }
        }
    }

    /// The cancelled receive that this one waited for has gone: what it left comes first.
    fn proceed(&self, py: Python<'_>, this: &Py<Operation>) -> PyResult<()> {
        let state = std::mem::replace(&mut *self.state.get()?, State::Spent);
        match state {
            State::Queued { work, future } => {
                let Work::Receive { fd, len, .. } = &work else {
                    return self.carry_on(py, this, work, future);
                };
                let kept = kept_of(&mut *self.scheduler.get().io.get()?, *fd, *len);
                match kept {
                    Some(kept) => {
                        let bytes = PyBytes::new(py, &kept).unbind().into_any();
                        *self.state.get()? = State::Done(Ok(bytes));
                        self.wake(py, future)
                    }
                    None => self.carry_on(py, this, work, future),
                }
            }
            other => {
                *self.state.get()? = other;
                Ok(())
            }
        }
    }

    /// Puts received bytes that nobody takes back in front of the socket.
    fn keep(&self, py: Python<'_>, value: Py<PyAny>, first: bool) -> PyResult<()> {
        if let (Some(fd), Ok(bytes)) = (self.receives, value.bind(py).cast::<PyBytes>())
            && !bytes.as_bytes().is_empty()
            && self.still_has(py, fd)
        {
            self.scheduler
                .get()
                .io
                .get()?
                .stash
                .keep(fd, bytes.as_bytes(), first);
        }
        Ok(())
    }

    /// Whether the fd is still that of the socket that the operation is about: closed since, it may be another's by now.
    fn still_has(&self, py: Python<'_>, fd: RawFd) -> bool {
        let number = |socket: &Py<PyAny>| {
            socket
                .call_method0(py, intern!(py, "fileno"))?
                .extract::<RawFd>(py)
        };
        self.socket
            .as_ref()
            .is_some_and(|socket| number(socket).is_ok_and(|number| number == fd))
    }

    /// Nobody waits for it any more: ask the engine to end it.
    fn abandon(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.get()?;
        match std::mem::replace(&mut *state, State::Spent) {
            State::Pending { token, work, .. } => {
                *state = State::Abandoned { work };
                drop(state);
                let mut io = self.scheduler.get().io.get()?;
                io.cancel(token);
                if let Some(fd) = self.receives {
                    io.leaving.begin(fd);
                }
                Ok(())
            }
            State::Abandoned { work } => {
                *state = State::Abandoned { work };
                Ok(())
            }
            State::Done(Ok(value)) => {
                drop(state);
                self.keep(py, value, true)
            }
            _ => Ok(()),
        }
    }
}

fn spent() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited operation")
}

#[pymethods]
impl Operation {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.socket)?;
        match self.state.try_get().as_deref() {
            Some(State::Pending { work, future, .. } | State::Queued { work, future }) => {
                visit.call(future)?;
                work.traverse(visit)
            }
            Some(State::Abandoned { work } | State::Try { work }) => work.traverse(visit),
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

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let mut state = this.state.get()?;
        match std::mem::replace(&mut *state, State::Spent) {
            State::Done(Ok(value)) => {
                drop(state);
                Err(PyStopIteration::new_err((value,)))
            }
            State::Done(Err(error)) => Err(error),
            State::Try { work } => {
                drop(state);
                let Work::Ready { then, .. } = &work else {
                    return Err(spent());
                };
                match then.call0(py) {
                    Ok(value) => Err(PyStopIteration::new_err((value,))),
                    // Somebody else was quicker: wait again.
                    Err(error) if error.is_instance_of::<PyBlockingIOError>(py) => {
                        this.carry_on(py, slf.as_unbound(), work, None)?;
                        Operation::__next__(slf)
                    }
                    Err(error) => Err(error),
                }
            }
            State::Pending { token, work, future } => {
                // Put back before any call into Python.
                *state = State::Pending {
                    token,
                    work,
                    future: future.as_ref().map(|future| future.clone_ref(py)),
                };
                drop(state);
                if future.is_some() {
                    return Err(PyRuntimeError::new_err("the operation is awaited already"));
                }
                let future = this.new_future(py)?;
                if let State::Pending { future: slot, .. } = &mut *this.state.get()? {
                    *slot = Some(future.clone_ref(py));
                }
                Ok(future)
            }
            State::Queued { work, future } => {
                let waits = future.is_some();
                *state = State::Queued { work, future };
                drop(state);
                if waits {
                    return Err(PyRuntimeError::new_err("the operation is awaited already"));
                }
                let future = this.new_future(py)?;
                if let State::Queued { future: slot, .. } = &mut *this.state.get()? {
                    *slot = Some(future.clone_ref(py));
                }
                Ok(future)
            }
            State::Abandoned { work } => {
                *state = State::Abandoned { work };
                Err(PyRuntimeError::new_err("the operation was cancelled"))
            }
            State::Spent => Err(spent()),
        }
    }

    fn send(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        Operation::__next__(slf)
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
            Some(value) if !value.is_none() => PyErr::from_value(value),
            _ => PyErr::from_value(kind),
        };
        let _ = traceback;
        Err(error)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.abandon(py)
    }
}

impl Drop for Operation {
    /// A receive that nobody awaited to its end: its bytes stay with the socket.
    fn drop(&mut self) {
        let Some(mut state) = self.state.try_get() else {
            return;
        };
        if self.receives.is_none() || !matches!(*state, State::Done(Ok(_))) {
            return;
        }
        let done = std::mem::replace(&mut *state, State::Spent);
        drop(state);
        if let State::Done(Ok(value)) = done {
            // A loop that is in use elsewhere, or closed, has no place for them any more.
            finalise(|py| {
                let _ = self.keep(py, value, true);
                Ok(())
            });
        }
    }
}

/// `sock_recv`: what was kept of a cancelled receive first, then the socket.
pub fn receive(
    scheduler: &Bound<'_, Scheduler>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    len: usize,
) -> PyResult<Py<Operation>> {
    let py = scheduler.py();
    let kept = kept_of(&mut *scheduler.get().io.get()?, fd, len);
    if let Some(kept) = kept {
        return Operation::done(scheduler, Ok(PyBytes::new(py, &kept).unbind().into_any()));
    }
    let bytes = scheduler.get().io.get()?.buffers.take(py, len)?;
    Operation::start(scheduler, socket, Work::Receive { fd, bytes, len })
}

/// What was kept of a cancelled receive.
pub fn kept_of(io: &mut Io, fd: RawFd, room: usize) -> Option<Vec<u8>> {
    if io.stash.is_empty() {
        None
    } else {
        io.stash.take(fd, room)
    }
}

/// `sock_sendall`: tries at once, and leaves the rest to the engine.
pub fn send_all(
    scheduler: &Bound<'_, Scheduler>,
    socket: &Bound<'_, PyAny>,
    fd: RawFd,
    buffer: Buffer,
) -> PyResult<Py<Operation>> {
    let len = buffer.len();
    let op = Op::Send {
        fd,
        buf: buffer.ptr(),
        len,
        flags: 0,
    };
    // SAFETY: the buffer is exported for as long as `buffer` lives.
    let sent = match unsafe { syscalls::attempt(&op) } {
        syscalls::AGAIN => 0,
        error if error < 0 => return Operation::done(scheduler, Err(os_error(error))),
        sent if sent as usize >= len => return Operation::done(scheduler, Ok(scheduler.py().None())),
        sent => sent as usize,
    };
    Operation::start(scheduler, socket, Work::Send { fd, buffer, sent })
}
