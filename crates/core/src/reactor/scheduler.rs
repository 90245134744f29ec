//! The scheduler: it owns the ready queue, the timers and the engine. `scheduler/callbacks.rs` schedules, `scheduler/turn.rs`
//! runs a turn of the loop.

mod callbacks;
mod hiding;
mod turn;
pub mod unmade;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use proact_driver::{Call, Clock, Config, Driver, Engine, Generation, Op, Token, Waker};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::call::{exception, stops_the_loop};
use crate::py::cell::SharedCell;
use crate::py::errno::io_error;
use crate::py::make::{Float, Name, Text, py_error};
use crate::reactor::handle::{Callback, Cancelled};
use crate::reactor::hooks::Hooks;
use crate::reactor::io::{Closed, Io, SHUTDOWN_LIMIT, open_engine};
use crate::reactor::owned::{Claim, Owned};
use crate::reactor::ready::{Queue, Ready};
use crate::reactor::target::Target;
use crate::reactor::timers::Timers;
use crate::reactor::watch::Readers;

/// The native half of `proact.EventLoop`.
#[pyclass(frozen, subclass, module = "proact._core")]
pub struct Scheduler {
    pub(crate) io: Owned<Io>,
    /// What was left behind while the engine was in use: see `leave`.
    orphans: SharedCell<Vec<Orphan>>,
    orphaned: AtomicBool,
    pub(crate) readers: SharedCell<Readers>,
    ready: Queue,
    timers: SharedCell<Timers>,
    pub(crate) cancelled: Arc<Cancelled>,
    /// Whether there are timers: set with `timers` held, read without. The loop's thread sees its own timers.
    timed: AtomicBool,
    /// `{"loop": None}`, for calls that pass the loop by this keyword: to make a dictionary takes a quarter of the time of a future.
    pub(crate) keywords: SharedCell<Option<Py<PyDict>>>,
    clock: Arc<dyn Clock>,
    waker: Waker,
    engine: &'static str,
    generation: Generation,
    pub(crate) stopping: AtomicBool,
    pub(crate) closed: AtomicBool,
    pub(crate) debug: AtomicBool,
    /// When the engine was last asked for work by a system call while callbacks were ready, in nanoseconds.
    last_poll: AtomicU64,
    turns: AtomicU64,
    hooks: OnceLock<Hooks>,
    /// Whether asyncio does not show this loop as the running one: `scheduler/hiding.rs`.
    hidden: AtomicBool,
    /// Whether the loop above is told when nothing can end a wait.
    pub(crate) tells_idle: AtomicBool,
    /// Changes whenever a run of the loop begins or ends.
    runs: AtomicU64,
}

/// What the loop's thread has to end for others.
enum Orphan {
    /// The fd of a transport that was dropped, and whether it is to be closed.
    Fd(RawFd, bool),
    Op(Token),
}

/// The error for a forked child.
fn forked() -> PyErr {
    py_error::<PyRuntimeError>(
        "this event loop belongs to the parent process; a forked child must make a loop of its own",
    )
}

/// The exception for an error of the engine.
fn engine_error(error: std::io::Error) -> PyErr {
    if error.raw_os_error() == Some(libc::EOWNERDEAD) {
        return forked();
    }
    io_error(error)
}

impl Scheduler {
    /// A scheduler on an engine that the caller gives: one of `Engine::ALL`, or any other that keeps the contract of
    /// [`Driver`].
    pub fn with_driver(driver: Box<dyn Driver>) -> Scheduler {
        let cancelled = Arc::default();
        Scheduler {
            clock: driver.clock(),
            waker: driver.waker(),
            orphans: SharedCell::new(Vec::new()),
            orphaned: AtomicBool::new(false),
            readers: SharedCell::new(Readers::default()),
            ready: Queue::default(),
            timers: SharedCell::new(Timers::new(Arc::clone(&cancelled))),
            cancelled,
            timed: AtomicBool::new(false),
            keywords: SharedCell::new(None),
            engine: driver.name(),
            io: Owned::new(Io::new(driver)),
            generation: Generation::current(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            last_poll: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            hooks: OnceLock::new(),
            hidden: AtomicBool::new(false),
            tells_idle: AtomicBool::new(false),
            runs: AtomicU64::new(0),
        }
    }

    /// What the native side needs from the loop above.
    ///
    /// # Errors
    /// `RuntimeError` for a loop whose `__init__` has not run.
    #[inline]
    pub fn hooks(&self) -> PyResult<&Hooks> {
        self.hooks
            .get()
            .ok_or_else(|| py_error::<PyRuntimeError>("the event loop was not initialised"))
    }

    /// Sets the hooks. A second call has no effect.
    pub fn set_hooks(&self, hooks: Hooks) {
        let _ = self.hooks.set(hooks);
    }

    pub fn push(&self, handle: Ready) {
        self.ready.lock().push(handle);
    }

    pub fn wake(&self) {
        self.waker.wake();
    }

    /// The right to do something now that ends something. If the loop runs in another thread, that thread is asked to call the
    /// method instead, and the answer is `None`: a finaliser may end something, and the collector runs finalisers in any
    /// thread.
    pub fn claim_or_defer(
        &self,
        object: &Bound<'_, PyAny>,
        method: &'static Name,
    ) -> PyResult<Option<Claim<'_>>> {
        if self.is_forked() || !self.io.runs_elsewhere() {
            return self.claim().map(Some);
        }
        self.method_soon(object, method)?;
        self.waker.wake();
        Ok(None)
    }

    /// The number of handles that are ready or wait for their time, and how many of them are cancelled.
    pub fn scheduled(&self, py: Python<'_>) -> (usize, usize) {
        let waiting: Vec<Ready> = {
            let timers = self.timers.lock();
            let ready = self.ready.lock();
            let timed = timers
                .callbacks()
                .map(|timer| Ready::Callback(timer.clone_ref(py)));
            ready
                .iter()
                .map(|ready| ready.clone_ref(py))
                .chain(timed)
                .collect()
        };
        // No lock is held here: an asyncio handle is asked through Python.
        let cancelled = waiting.iter().filter(|handle| handle.is_cancelled(py)).count();
        (waiting.len(), cancelled)
    }

    pub fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether this process was forked from the one that made the loop.
    pub fn is_forked(&self) -> bool {
        !self.generation.is_current()
    }

    /// # Errors
    /// `RuntimeError` for a closed loop.
    #[inline]
    pub fn check_open(&self) -> PyResult<()> {
        if self.is_closed() {
            return Err(py_error::<PyRuntimeError>("Event loop is closed"));
        }
        Ok(())
    }

    /// Checked before anything that needs the engine.
    ///
    /// # Errors
    /// `RuntimeError` for a closed loop, and in a forked child, which would corrupt its parent's loop.
    pub fn check_closed(&self) -> PyResult<()> {
        self.check_open()?;
        if self.is_forked() {
            return Err(forked());
        }
        Ok(())
    }

    /// Claims the loop for a call, before the call changes anything, so that a refused call has no effect.
    ///
    /// # Errors
    /// `RuntimeError` if the loop runs in another thread.
    #[inline]
    pub fn claim(&self) -> PyResult<Claim<'_>> {
        self.io.claim()
    }

    /// # Errors
    /// `TypeError` for a TLS socket: its bytes are not those of the fd.
    #[inline]
    pub fn check_plain_socket(&self, socket: &Bound<'_, PyAny>) -> PyResult<()> {
        let hooks = self.hooks()?;
        if socket.get_type().is(&hooks.plain_socket) {
            return Ok(());
        }
        hooks.check_socket.bind(socket.py()).call1((socket,)).map(drop)
    }

    /// Reports an error to the loop's exception handler. An error that stops the loop is returned instead.
    pub fn report(slf: &Bound<'_, Self>, message: &str, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        Scheduler::show(slf)?;
        let failed = slf.get().hooks()?.failed.bind(py);
        failed
            .call1((slf, Text(message), exception(py, &error)))
            .map(drop)
    }

    /// The transport that an fd belongs to.
    fn transport_of(&self, py: Python<'_>, fd: RawFd) -> PyResult<Option<Py<PyAny>>> {
        let io = self.io.get()?;
        let owner = io.slots.targets().find(|target| target.owns(py, fd));
        Ok(owner.and_then(Target::object).map(|object| object.clone_ref(py)))
    }

    /// Refuses the fd of a transport, which the program must not use itself.
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

    /// The engine's time, in nanoseconds. Any thread may ask.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// As [`proact_driver::Driver::attempt`].
    ///
    /// # Errors
    /// `RuntimeError` while the engine is in use, by another thread.
    ///
    /// # Safety
    /// What the op points at is valid while the call lasts.
    #[inline]
    pub unsafe fn attempt(&self, op: &Op) -> PyResult<i32> {
        // SAFETY: passed on.
        Ok(unsafe { self.io.get()?.driver.attempt(op) })
    }

    /// As [`proact_driver::Driver::call`].
    ///
    /// # Errors
    /// As [`Scheduler::attempt`].
    pub fn call(&self, call: Call<'_>) -> PyResult<i32> {
        Ok(self.io.get()?.driver.call(call))
    }

    /// Gives up the fd of a transport, and closes it if it is `ours`. A destructor may call this on any thread. While the
    /// engine is in use, the next turn does the work.
    pub fn give_up_later(&self, fd: RawFd, ours: bool) {
        if self.is_closed() || self.is_forked() {
            if ours {
                // SAFETY: the transport's own fd, which no engine uses any more (in a forked child, its copy).
                unsafe { libc::close(fd) };
            }
            return;
        }
        self.leave(Orphan::Fd(fd, ours));
    }

    /// Cancels an op whose file is about to be closed. While the engine is in use, the next turn does it.
    pub fn cancel_later(&self, token: Token) {
        if !self.is_closed() && !self.is_forked() {
            self.leave(Orphan::Op(token));
        }
    }

    fn leave(&self, orphan: Orphan) {
        self.orphans.lock().push(orphan);
        self.orphaned.store(true, Ordering::Release);
        if let Some(mut io) = self.io.if_free() {
            self.adopt(&mut io);
        } else {
            self.waker.wake();
        }
    }

    /// Ends what `leave` has left.
    fn adopt(&self, io: &mut Io) {
        if !self.orphaned.swap(false, Ordering::Acquire) {
            return;
        }
        for orphan in std::mem::take(&mut *self.orphans.lock()) {
            // No one can be told of an error.
            let _ = match orphan {
                Orphan::Fd(fd, ours) => io.give_up(fd, ours),
                Orphan::Op(token) if io.cancel(token) => Ok(()),
                // Until the kernel has the cancellation the ring holds the file, and its peer does not see a close.
                Orphan::Op(_) => io.driver.flush(),
            };
        }
    }

    /// Ends the engine, and drops everything that is scheduled or in flight.
    fn release(&self) -> PyResult<()> {
        let _claim = self.claim()?;
        let (left, targets, queued) = {
            let mut io = self.io.get()?;
            self.adopt(&mut io);
            // A forked child only closes its copies of the fds.
            let left = if self.is_forked() {
                0
            } else {
                io.driver.shutdown(SHUTDOWN_LIMIT)
            };
            // Close the engine's fds now, even if the program still holds the loop.
            let closed = Box::new(Closed::after(&*io.driver));
            io.driver = closed;
            self.waker.detach();
            let fds = std::mem::take(&mut io.fds);
            (left, io.slots.drain(), fds)
        };
        if left > 0 {
            // The kernel may still write to their memory, so it is leaked and not freed.
            std::mem::forget(targets);
        }
        drop(queued);
        let readers = std::mem::take(&mut *self.readers.lock());
        drop(readers);
        let ready = self.ready.lock().take();
        ready.iter().for_each(Ready::discard);
        let timers = self.timers.lock().drain();
        timers.iter().for_each(Callback::discard);
        Ok(())
    }
}

#[pymethods]
impl Scheduler {
    /// Opens an engine by its name.
    #[new]
    #[pyo3(signature = (engine))]
    fn new(engine: &str) -> PyResult<Scheduler> {
        let engine = Engine::from_name(engine)
            .ok_or_else(|| py_error::<PyValueError>(format!("no engine is named {engine:?}")))?;
        Ok(Scheduler::with_driver(open_engine(engine, &Config::default())?))
    }

    /// The engine's name.
    #[getter]
    fn engine(&self) -> Text<&'static str> {
        Text(self.engine)
    }

    /// The time of the loop, in seconds of the monotonic clock.
    pub fn time(&self) -> Float {
        Float(self.now() as f64 / 1e9)
    }

    /// Ends everything in flight and lets go of all that is scheduled.
    #[pyo3(name = "_shutdown")]
    fn shutdown(&self) -> PyResult<()> {
        self.release()
    }

    fn __clear__(&self) -> PyResult<()> {
        self.release()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.ready.traverse(visit)?;
        if let Some(timers) = self.timers.look() {
            timers.callbacks().try_for_each(|timer| timer.traverse(visit))?;
        }
        if let Some(readers) = self.readers.look() {
            readers.watches().try_for_each(|watch| visit.call(watch))?;
        }
        if let Some(hooks) = self.hooks.get() {
            hooks.traverse(visit)?;
        }
        if let Some(io) = self.io.look() {
            io.fds
                .waiting()
                .try_for_each(|waiting| visit.call(waiting.object()))?;
            for target in io.slots.targets() {
                visit.call(target.object())?;
            }
        }
        Ok(())
    }
}

impl Drop for Scheduler {
    /// A loop that was not closed: the kernel must stop using the memory of its ops before that is freed.
    fn drop(&mut self) {
        // No other reference exists, so this can't fail.
        let _ = self.release();
    }
}
