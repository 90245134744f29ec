//! `await loop.sock_recv(...)`: one awaitable, one wake-up of the task, no coroutine in between.
//!
//! An `Operation` has the methods of a coroutine, and like a coroutine it begins with its first step. On a socket, the engine
//! polls; when the socket is ready, the task goes on and makes the call itself. So bytes are received only within a step of
//! the task that gets them: a cancelled operation has received nothing, on every engine. A send is tried within the first
//! step, and then goes on without its task until all bytes are sent. An operation on a file is an op of the engine's.
//!
//! ```text
//! New ──step──▶ InFlight ──completion──▶ Woken ──step──▶ Spent, or InFlight again
//!  │             ▲    │                  Done, Ended ──step──▶ Spent
//!  ├──step──▶ Queued  └──throw, close──▶ Abandoned ──completion──▶ Spent
//!  └──step──▶ Spent
//! ```

mod coroutine;
mod file;

use file::Ended;

use std::os::fd::RawFd;

use proact_driver::{Call, Op, Token, ops};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::buffer::Buffer;
use crate::py::cell::SharedCell;
use crate::py::coroutine::Step;
use crate::py::descriptor::number;
use crate::py::errno::os_error;
use crate::py::make::py_error;
use crate::py::method::Method;
use crate::reactor::fds::{Side, Waiting};
use crate::reactor::file_work::FileWork;
use crate::reactor::io::Sent;
use crate::reactor::parking::Parking;
use crate::reactor::ready::Ready;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::{Completes, Target};
use crate::reactor::waiter::Waiter;
use crate::reactor::work::{Work, socket_fd};

enum State {
    New(Work),
    /// The poll, or the op of a file, is in flight.
    InFlight {
        token: Token,
        fd: RawFd,
        work: Work,
        waiter: Waiter,
    },
    /// Other operations on this side of the socket come first.
    Queued {
        fd: RawFd,
        work: Work,
        waiter: Waiter,
    },
    /// The socket is ready. The next step of the task makes the call.
    Woken {
        fd: RawFd,
        work: Work,
    },
    Done(PyResult<Py<PyAny>>),
    /// The op of a file is over, and no step has taken its result yet.
    Ended(Ended),
    /// Nobody waits for the result, and the op is still in flight.
    Abandoned(Left),
    Spent,
}

/// A receive of at least so many bytes shows that the peer sends in bulk.
const BULK: usize = 16 * 1024;

/// What the engine still uses of an abandoned operation.
enum Left {
    Poll(RawFd, Side),
    /// Its memory lives on until the terminal completion.
    File(FileWork),
}

/// An awaitable operation on a socket or a file.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Operation {
    scheduler: Py<Scheduler>,
    /// The object whose fd is used. `Io::evict` compares it to find operations whose fd was closed meanwhile.
    object: Py<PyAny>,
    /// Whether greenlets wait for it, not tasks.
    green: bool,
    state: SharedCell<State>,
}

static OPERATIONS: Completes<Operation> = Completes::<Operation>::new(|operation, arrived| {
    let (py, result) = (operation.py(), arrived.completion.result);
    operation.get().completed(py, operation.as_unbound(), result)
})
.that_borrows(|operation, fd, object| operation.get().is_stale(fd, object));

impl Operation {
    pub fn new(
        scheduler: &Bound<'_, Scheduler>,
        object: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Py<Operation>> {
        let operation = Operation::waited_by(scheduler, object, work, false);
        Py::new(scheduler.py(), operation)
    }

    fn waited_by(
        scheduler: &Bound<'_, Scheduler>,
        object: &Bound<'_, PyAny>,
        work: Work,
        green: bool,
    ) -> Operation {
        Operation {
            scheduler: scheduler.clone().unbind(),
            object: object.clone().unbind(),
            green,
            state: SharedCell::new(State::New(work)),
        }
    }

    /// Does it, while the greenlet that runs now waits.
    ///
    /// # Errors
    /// What the operation raises, and what is raised in the greenlet while it waits: then nothing was received.
    pub fn run(
        scheduler: &Bound<'_, Scheduler>,
        object: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Py<PyAny>> {
        let operation = Operation::waited_by(scheduler, object, work, true);
        let operation = Bound::new(scheduler.py(), operation)?;
        loop {
            let parking = match Operation::step(&operation)? {
                Step::Finished(value) => return Ok(value),
                Step::Waits(parking) => parking.into_bound(scheduler.py()).cast_into::<Parking>()?,
            };
            if let Err(error) = Parking::wait(&parking) {
                Operation::abandon(&operation);
                return Err(error);
            }
        }
    }

    /// The greenlet that waits for it, the side of the socket, and the socket.
    pub fn waited_for(&self, py: Python<'_>) -> Option<(Py<PyAny>, Side, Py<PyAny>)> {
        match &*self.state.lock() {
            State::InFlight {
                work,
                waiter: Waiter::Greenlet(parking),
                ..
            }
            | State::Queued {
                work,
                waiter: Waiter::Greenlet(parking),
                ..
            } => Some((
                parking.get().greenlet(py)?,
                work.side(),
                self.object.clone_ref(py),
            )),
            _ => None,
        }
    }

    fn waiter(&self, py: Python<'_>) -> PyResult<Waiter> {
        if self.green {
            Waiter::greenlet(py)
        } else {
            Waiter::task(self.scheduler.bind(py))
        }
    }

    /// Replaces the state. The caller drops the old state, which may run Python code, when no cell is held.
    fn turn_to(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock(), state)
    }

    /// The first step.
    fn begin(slf: &Bound<'_, Self>, mut work: Work) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.scheduler.bind(py);
        if let Work::File(work) = work {
            return Operation::begin_file(slf, work);
        }
        let fd = socket_fd(scheduler, this.object.bind(py), this.green)?;
        if let Work::ReceiveInto { buffer, .. } = &work {
            // Check now whether the buffer can be written to, and not only when bytes arrive.
            drop(Buffer::room(buffer.bind(py))?);
        }
        // A receive never makes its call in the first step: a task that is cancelled right after that step must have received
        // nothing.
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
            // More bytes are there already: the engine need not poll.
            Side::Read if is_free && is_bulk && is_ready(scheduler.get(), fd)? => {
                let waiter = this.waiter(py)?;
                this.turn_to(State::Woken { fd, work });
                waiter.wake(py, scheduler.get())?;
                return Ok(Step::Waits(waiter.yields(py)));
            }
            _ => {}
        }
        Operation::wait(slf, fd, work, false)
    }

    /// Waits until the socket is ready: at the end of the line, or `in_front` of it.
    fn wait(slf: &Bound<'_, Self>, fd: RawFd, work: Work, in_front: bool) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let waiter = this.waiter(py)?;
        let yields = waiter.yields(py);
        match this.poll(py, slf.as_unbound(), fd, work, waiter, in_front)? {
            None => Ok(Step::Waits(yields)),
            Some((result, _)) => Err(os_error(result)),
        }
    }

    /// Has the engine poll, or enters the line. If the engine refuses, the result and the waiter are returned.
    fn poll(
        &self,
        py: Python<'_>,
        this: &Py<Operation>,
        fd: RawFd,
        work: Work,
        waiter: Waiter,
        in_front: bool,
    ) -> PyResult<Option<(i32, Waiter)>> {
        let side = work.side();
        let (mut state, mut io) = (self.state.lock(), self.scheduler.get().io.get()?);
        if io.fds.is_polled(fd, side) {
            let waiting = Waiting::new(this.clone_ref(py), Operation::take_turn);
            io.fds.line_up(fd, side, waiting, in_front);
            *state = State::Queued { fd, work, waiter };
            return Ok(None);
        }
        let events = side.events();
        // SAFETY: a poll points at no memory.
        match unsafe {
            io.submit(
                Op::Poll(ops::Poll { fd, events }),
                Target::new(this.clone_ref(py), &OPERATIONS),
            )
        } {
            Sent::Pending(token) => {
                io.fds.set_polled(fd, side, true);
                *state = State::InFlight {
                    token,
                    fd,
                    work,
                    waiter,
                };
                Ok(None)
            }
            Sent::Ready(result) => Ok(Some((result, waiter))),
        }
    }

    /// Whether it uses this fd as the fd of another object than this one.
    fn is_stale(&self, fd: RawFd, object: *mut ffi::PyObject) -> bool {
        let other = self.object.as_ptr() != object;
        let state = self.state.lock();
        other && matches!(&*state, State::InFlight { fd: used, .. } if *used == fd)
    }

    /// Takes the terminal completion. An exception goes to the loop's exception handler, and ends nothing else.
    fn completed(&self, py: Python<'_>, this: &Py<Operation>, result: i32) -> PyResult<()> {
        match self.complete(py, this, result) {
            Err(error) => Scheduler::report(self.scheduler.bind(py), "An operation could not go on", error),
            Ok(()) => Ok(()),
        }
    }

    fn complete(&self, py: Python<'_>, this: &Py<Operation>, result: i32) -> PyResult<()> {
        let (fd, side) = match self.turn_to(State::Spent) {
            State::InFlight {
                work: Work::File(work),
                waiter,
                ..
            } => {
                self.scheduler.get().io.get()?.files_ended += 1;
                self.turn_to(State::Ended(Ended::new(work, result)));
                return waiter.wake(py, self.scheduler.get());
            }
            State::InFlight { fd, work, waiter, .. } => {
                let side = work.side();
                self.scheduler.get().io.get()?.fds.set_polled(fd, side, false);
                if result < 0 {
                    // Only a green socket that is closed under its operations cancels those of others.
                    let closed = self.green && result == -libc::ECANCELED;
                    let result = if closed { -libc::EBADF } else { result };
                    self.turn_to(State::Done(Err(os_error(result))));
                    waiter.wake(py, self.scheduler.get())?;
                } else if self.ready(py, this, fd, work, waiter)? {
                    return Ok(());
                }
                (fd, side)
            }
            State::Abandoned(Left::Poll(fd, side)) => {
                self.scheduler.get().io.get()?.fds.set_polled(fd, side, false);
                (fd, side)
            }
            State::Abandoned(Left::File(work)) => {
                work.discard(result);
                return Ok(());
            }
            other => {
                self.turn_to(other);
                return Ok(());
            }
        };
        self.call_next(py, fd, side)
    }

    /// The socket is ready. True if a send has more bytes left and waits for the socket again.
    fn ready(
        &self,
        py: Python<'_>,
        this: &Py<Operation>,
        fd: RawFd,
        mut work: Work,
        waiter: Waiter,
    ) -> PyResult<bool> {
        let goes_on =
            matches!(work, Work::Send { .. }) && !waiter.is_done(py)? && number(self.object.bind(py))? == fd;
        if !goes_on {
            self.turn_to(State::Woken { fd, work });
            waiter.wake(py, self.scheduler.get())?;
            return Ok(false);
        }
        let (outcome, waiter) = match work.attempt(self.scheduler.bind(py), fd) {
            Ok(None) => match self.poll(py, this, fd, work, waiter, true)? {
                None => return Ok(true),
                Some((result, waiter)) => (Err(os_error(result)), waiter),
            },
            Ok(Some(value)) => (Ok(value), waiter),
            Err(error) => (Err(error), waiter),
        };
        self.turn_to(State::Done(outcome));
        waiter.wake(py, self.scheduler.get())?;
        Ok(false)
    }

    /// A poll has ended. The next operation on this side of the socket is polled for.
    fn call_next(&self, py: Python<'_>, fd: RawFd, side: Side) -> PyResult<()> {
        loop {
            let next = self.scheduler.get().io.get()?.fds.next(fd, side);
            match next {
                Some(next) if !next.call(py)? => {}
                _ => return Ok(()),
            }
        }
    }

    /// Has the engine poll for this operation, which was first in the line. False: it does not wait any more.
    fn take_turn(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let (fd, work, waiter) = match this.turn_to(State::Spent) {
            State::Queued { fd, work, waiter } => (fd, work, waiter),
            other => {
                this.turn_to(other);
                return Ok(false);
            }
        };
        let is_open = number(this.object.bind(py)).is_ok_and(|number| number == fd);
        let (result, waiter) = if is_open {
            match this.poll(py, slf.as_unbound(), fd, work, waiter, true)? {
                None => return Ok(true),
                Some(refused) => refused,
            }
        } else {
            (-libc::EBADF, waiter)
        };
        this.turn_to(State::Done(Err(os_error(result))));
        waiter.wake(py, this.scheduler.get())?;
        Ok(false)
    }

    /// Nobody waits for the result any more. The engine is asked to end the op. A finaliser may call this in any thread; if the
    /// loop runs in another one, that thread does it.
    fn abandon(slf: &Bound<'_, Self>) {
        let scheduler = slf.get().scheduler.get();
        let claim = scheduler.claim();
        if claim.is_ok() || scheduler.is_forked() {
            return Self::abandon_here(slf);
        }
        scheduler.push(Ready::Method(Method::new(slf.clone().unbind(), |operation| {
            Operation::abandon_here(operation);
            Ok(None)
        })));
        scheduler.wake();
    }

    fn abandon_here(slf: &Bound<'_, Self>) {
        let this = slf.get();
        let scheduler = this.scheduler.get();
        match this.turn_to(State::Spent) {
            State::InFlight {
                token,
                fd,
                work,
                waiter,
            } => {
                let (left, work) = match work {
                    Work::File(work) => (Left::File(work), None),
                    work => (Left::Poll(fd, work.side()), Some(work)),
                };
                let is_poll = work.is_some();
                this.turn_to(State::Abandoned(left));
                // Not free in a forked child, whose parent's loop ran in another thread.
                if let Some(mut io) = scheduler.io.if_free() {
                    io.cancel(token);
                    if is_poll {
                        // Submit the cancellation now: until then the ring holds the file, and a program that closes the
                        // socket next would not be seen by its peer. An error shows with the next wait.
                        let _ = io.driver.flush();
                    }
                }
                // No cell is held here: dropping these may run any code.
                drop((work, waiter));
            }
            State::Queued { fd, work, waiter } => {
                let io = scheduler.io.if_free();
                let place = io.and_then(|mut io| io.fds.leave(fd, work.side(), slf));
                drop((place, work, waiter));
            }
            abandoned @ State::Abandoned(_) => {
                this.turn_to(abandoned);
            }
            State::New(_) | State::Woken { .. } | State::Done(_) | State::Ended(_) | State::Spent => {}
        }
    }

    fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let _claim = this.scheduler.get().claim()?;
        match this.turn_to(State::Spent) {
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
                    // Another reader or writer was faster.
                    None => Operation::wait(slf, fd, work, true),
                }
            }
            State::Done(outcome) => outcome.map(Step::Finished),
            State::Ended(ended) => ended.take(py).map(Step::Finished),
            State::Spent => Err(py_error::<PyRuntimeError>(
                "cannot reuse already awaited operation",
            )),
            abandoned @ State::Abandoned(_) => {
                this.turn_to(abandoned);
                Err(py_error::<PyRuntimeError>(
                    "cannot reuse already awaited operation",
                ))
            }
            waiting => {
                this.turn_to(waiting);
                Err(py_error::<PyRuntimeError>(
                    "the operation is being awaited already",
                ))
            }
        }
    }
}

/// Whether the socket has something to read now.
fn is_ready(scheduler: &Scheduler, fd: RawFd) -> PyResult<bool> {
    let events = Side::Read.events();
    Ok(scheduler.call(Call::Poll { fd, events })? >= 0)
}
