//! The scheduler: the ready queue, the timers and the engine, and what a program asks of them. A turn of the loop is in
//! `scheduler/turn.rs`.

mod turn;
pub mod unmade;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use proact_driver::{Config, Engine, Generation, Waker};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::asyncio::transport::stream::StreamTransport;
use crate::py::call::{current_context, exception, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::errno::io_error;
use crate::py::make::{Float, Name, Text, dict, name, py_error};
use crate::reactor::clock::{nanoseconds, now};
use crate::reactor::handle::{Cancelled, Handle, TimerHandle};
use crate::reactor::io::{Closed, Io, SHUTDOWN_LIMIT, open_engine};
use crate::reactor::ready::{Queue, Ready};
use crate::reactor::slots::Target;
use crate::reactor::timers::Timers;
use crate::reactor::watch::Readers;

/// The native half of `proact.EventLoop`.
#[pyclass(frozen, subclass, module = "proact._core")]
pub struct Scheduler {
    pub(crate) io: LoopCell<Io>,
    /// Fds of transports that went while the engine was in use, and whether they are to be closed: see `give_up_later`.
    orphans: LoopCell<Vec<(RawFd, bool)>>,
    orphaned: AtomicBool,
    pub(crate) readers: LoopCell<Readers>,
    ready: Queue,
    timers: LoopCell<Timers>,
    cancelled: Arc<Cancelled>,
    /// Whether there are timers: set with `timers` held, read without. The loop's thread sees its own timers.
    timed: AtomicBool,
    waker: Waker,
    engine: Engine,
    generation: Generation,
    stopping: AtomicBool,
    closed: AtomicBool,
    debug: AtomicBool,
    server_takes_transport: OnceLock<bool>,
    buffered_protocol: OnceLock<Py<PyAny>>,
    plain_socket: OnceLock<Py<PyAny>>,
}

/// What a forked child is told.
fn forked() -> PyErr {
    py_error::<PyRuntimeError>(
        "this event loop belongs to the parent process; a forked child must make a loop of its own",
    )
}

/// How an engine's error shows.
fn engine_error(error: std::io::Error) -> PyErr {
    if error.raw_os_error() == Some(libc::EOWNERDEAD) {
        return forked();
    }
    io_error(error)
}

impl Scheduler {
    pub fn push(&self, handle: Ready) {
        self.ready.lock().push(handle);
    }

    fn push_timer(&self, when: f64, handle: Ready) -> PyResult<()> {
        let mut timers = self.timers.get()?;
        timers.push(nanoseconds(when), handle);
        self.timed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Schedules a native callback.
    #[inline]
    pub fn soon(
        &self,
        py: Python<'_>,
        callback: Py<PyAny>,
        args: Py<PyTuple>,
        context: Py<PyAny>,
    ) -> PyResult<Py<Handle>> {
        let mut ready = self.ready.lock();
        let handle = match ready.spare() {
            Some(handle) => {
                // SAFETY: a recycled handle, which nobody else has seen yet.
                unsafe { handle.get().refill(callback, args, context) };
                handle
            }
            None => {
                drop(ready);
                let handle = Handle::create(py, callback, args, context)?;
                ready = self.ready.lock();
                handle
            }
        };
        ready.push(Ready::Native(handle.clone_ref(py)));
        Ok(handle)
    }

    /// Schedules a method of an object for the next turn. The name is interned: of any other object the type's cache
    /// would keep a reference.
    pub fn method_soon(&self, object: &Bound<'_, PyAny>, method: &'static Name) -> PyResult<()> {
        let py = object.py();
        let callback = object.getattr(method)?.unbind();
        let args = PyTuple::empty(py).unbind();
        self.soon(py, callback, args, current_context(py)?).map(drop)
    }

    pub fn wake(&self) {
        self.waker.wake();
    }

    /// In another thread than the loop's, while that is in the engine: has the loop's thread call the method. What ends something
    /// does so, for it may be a finaliser's, and the collector runs in any thread. False: it can be done here.
    pub fn defers(&self, object: &Bound<'_, PyAny>, method: &'static Name) -> PyResult<bool> {
        if self.is_forked() || self.io.try_get().is_some() {
            return Ok(false);
        }
        self.method_soon(object, method)?;
        self.waker.wake();
        Ok(true)
    }

    /// Handles that are ready or wait for their time, and how many of them were cancelled meanwhile.
    pub fn scheduled(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let waiting: Vec<Ready> = {
            let timers = self.timers.get()?;
            let ready = self.ready.lock();
            ready
                .iter()
                .chain(timers.handles())
                .map(|handle| handle.clone_ref(py))
                .collect()
        };
        // With the locks free: one of asyncio's handles is asked through Python.
        let cancelled = waiting.iter().filter(|handle| handle.is_cancelled(py)).count();
        Ok((waiting.len(), cancelled))
    }

    pub fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether this process is a fork of the one that made the loop.
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

    /// Asked before anything that needs the engine.
    ///
    /// # Errors
    /// `RuntimeError` for a closed loop, and in a forked child, where using it would corrupt the parent's.
    pub fn check_closed(&self) -> PyResult<()> {
        self.check_open()?;
        if self.is_forked() {
            return Err(forked());
        }
        Ok(())
    }

    /// Asked before anything is changed: what is refused has not happened. The answer holds for as long as the caller runs no
    /// Python code.
    ///
    /// # Errors
    /// `RuntimeError` in a thread that is not the loop's while that one is in the engine.
    #[inline]
    pub fn check_free(&self) -> PyResult<()> {
        self.io.get().map(drop)
    }

    pub fn server_takes_transport(&self) -> bool {
        *self.server_takes_transport.get().unwrap_or(&true)
    }

    pub fn is_buffered(&self, protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.buffered_protocol.get() {
            Some(kind) => protocol.is_instance(kind.bind(protocol.py())),
            None => Ok(false),
        }
    }

    /// # Errors
    /// `TypeError` for a TLS socket, whose bytes are not the socket's.
    #[inline]
    pub fn check_plain_socket(&self, socket: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.plain_socket.get() {
            Some(plain) if socket.get_type().is(plain) => Ok(()),
            _ => socket
                .py()
                .import(name!("asyncio.base_events"))?
                .call_method1(name!("_check_ssl_socket"), (socket,))
                .map(drop),
        }
    }

    /// Tells the loop's exception handler of what went wrong between callbacks. What stops the loop is passed on.
    pub fn report(slf: &Bound<'_, Self>, message: &str, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        let context = dict(py)?;
        context.set_item(name!("message"), Text(message))?;
        context.set_item(name!("exception"), exception(py, &error))?;
        slf.call_method1(name!("call_exception_handler"), (context,))
            .map(drop)
    }

    /// The transport that an fd belongs to.
    pub fn transport_of(&self, py: Python<'_>, fd: i32) -> PyResult<Option<Py<StreamTransport>>> {
        let io = self.io.get()?;
        for target in io.slots.targets() {
            if let Target::StreamReceive(transport) | Target::StreamReadable(transport) = target
                && transport.get().fd()? == fd
            {
                return Ok(Some(transport.clone_ref(py)));
            }
        }
        Ok(None)
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

    /// A transport's fd belongs to nobody any more, and is to be closed if it was `ours`. A destructor may say so: on any
    /// thread, and while the engine is in use, in which case the next turn sees to it.
    pub fn give_up_later(&self, fd: RawFd, ours: bool) {
        if self.is_closed() || self.is_forked() {
            if ours {
                // SAFETY: the transport's own fd, which no engine uses any more (in a forked child, its copy).
                unsafe { libc::close(fd) };
            }
            return;
        }
        self.orphans.wait().push((fd, ours));
        self.orphaned.store(true, Ordering::Release);
        if let Some(mut io) = self.io.try_get() {
            self.adopt(&mut io);
        } else {
            self.waker.wake();
        }
    }

    /// Gives up the fds that were left behind.
    fn adopt(&self, io: &mut Io) {
        if !self.orphaned.swap(false, Ordering::Acquire) {
            return;
        }
        for (fd, ours) in std::mem::take(&mut *self.orphans.wait()) {
            // Nobody is left who could be told of an error.
            let _ = io.give_up(fd, ours);
        }
    }

    /// Ends the engine, and drops all that waits for it or for its time.
    fn release(&self) -> PyResult<()> {
        let (left, targets, queued) = {
            let mut io = self.io.get()?;
            self.adopt(&mut io);
            // A forked child only lets go of its copies.
            let left = if self.is_forked() {
                0
            } else {
                io.driver.shutdown(SHUTDOWN_LIMIT)
            };
            // The engine's fds go now, whoever still holds the loop.
            let closed = Box::new(Closed::after(&*io.driver));
            io.driver = closed;
            self.waker.detach();
            let fds = std::mem::take(&mut io.fds);
            (left, io.slots.drain(), fds)
        };
        if left > 0 {
            // The kernel may still write to their memory: better lost than freed.
            std::mem::forget(targets);
        }
        drop(queued);
        let readers = std::mem::take(&mut *self.readers.get()?);
        drop(readers);
        let ready = self.ready.lock().take();
        ready.iter().for_each(Ready::discard);
        let timers = self.timers.get()?.drain();
        timers.iter().for_each(Ready::discard);
        Ok(())
    }

    /// Schedules a callback for the next turn; `threadsafe` from any thread, waking the loop if it sleeps.
    #[inline]
    pub fn call_soon(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
        threadsafe: bool,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_open()?;
        let handle = if this.is_debug() {
            let handle = slf
                .call_method1(name!("_debug_handle"), (callback, args, context, !threadsafe))?
                .unbind();
            this.push(Ready::Debug(handle.clone_ref(py)));
            handle
        } else {
            let context = context_or_current(py, context)?;
            this.soon(py, callback.unbind(), args.unbind(), context)?
                .into_any()
        };
        if threadsafe {
            this.waker.wake();
        }
        Ok(handle)
    }

    fn schedule_at(
        slf: &Bound<'_, Self>,
        when: f64,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_open()?;
        if this.is_debug() {
            let handle = slf
                .call_method1(name!("_debug_timer"), (Float(when), callback, args, context))?
                .unbind();
            this.push_timer(when, Ready::Debug(handle.clone_ref(py)))?;
            return Ok(handle);
        }
        let context = context_or_current(py, context)?;
        let handle = Handle::new(callback.unbind(), args.unbind(), context);
        let timer = TimerHandle::create(py, when, handle, this.cancelled.clone())?;
        let base = timer.bind(py).as_super().clone().unbind();
        this.push_timer(when, Ready::Native(base))?;
        Ok(timer.into_any())
    }
}

fn context_or_current(py: Python<'_>, context: Option<Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    match context {
        Some(context) => Ok(context.unbind()),
        None => current_context(py),
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
        let driver = open_engine(engine, &Config::default())?;
        let cancelled = Arc::default();
        Ok(Scheduler {
            waker: driver.waker(),
            io: LoopCell::new(Io::new(driver)),
            orphans: LoopCell::new(Vec::new()),
            orphaned: AtomicBool::new(false),
            readers: LoopCell::new(Readers::default()),
            ready: Queue::default(),
            timers: LoopCell::new(Timers::new(Arc::clone(&cancelled))),
            cancelled,
            timed: AtomicBool::new(false),
            engine,
            generation: Generation::current(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            server_takes_transport: OnceLock::new(),
            buffered_protocol: OnceLock::new(),
            plain_socket: OnceLock::new(),
        })
    }

    /// What the native side must know of asyncio.
    #[pyo3(name = "_configure")]
    fn configure(
        &self,
        buffered_protocol: Bound<'_, PyAny>,
        plain_socket: Bound<'_, PyAny>,
        server_takes_transport: bool,
    ) {
        let _ = self.plain_socket.set(plain_socket.unbind());
        let _ = self.buffered_protocol.set(buffered_protocol.unbind());
        let _ = self.server_takes_transport.set(server_takes_transport);
    }

    /// The engine's name.
    #[getter]
    fn engine(&self) -> Text<&'static str> {
        Text(self.engine.name())
    }

    /// The time of the loop, in seconds of the monotonic clock.
    fn time(&self) -> Float {
        Float(now() as f64 / 1e9)
    }

    /// Schedules a callback `delay` seconds from now.
    #[pyo3(signature = (delay, callback, *args, context = None))]
    fn call_later(
        slf: &Bound<'_, Self>,
        delay: Option<f64>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let delay = delay.ok_or_else(|| py_error::<PyTypeError>("delay must not be None"))?;
        Scheduler::schedule_at(slf, slf.get().time().0 + delay, callback, args, context)
    }

    /// Schedules a callback for a time of the loop's clock, in seconds.
    #[pyo3(signature = (when, callback, *args, context = None))]
    fn call_at(
        slf: &Bound<'_, Self>,
        when: Option<f64>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let when = when.ok_or_else(|| py_error::<PyTypeError>("when cannot be None"))?;
        Scheduler::schedule_at(slf, when, callback, args, context)
    }

    #[pyo3(name = "_write_to_self")]
    fn write_to_self(&self) {
        self.waker.wake();
    }

    /// What asyncio's own handles tell: debug mode uses them.
    #[pyo3(name = "_timer_handle_cancelled", signature = (handle, /))]
    fn timer_handle_cancelled(&self, handle: Bound<'_, PyAny>) {
        let _ = handle;
        self.cancelled.add();
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    #[setter(_stopping)]
    fn set_stopping(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.stopping.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_closed)]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn set_closed(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.closed.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_debug)]
    fn debug(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug_flag(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.debug.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
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
        if let Some(timers) = self.timers.try_get() {
            timers.handles().try_for_each(|handle| handle.traverse(visit))?;
        }
        if let Some(readers) = self.readers.try_get() {
            readers.watches().try_for_each(|watch| visit.call(watch))?;
        }
        for class in [&self.buffered_protocol, &self.plain_socket] {
            visit.call(class.get())?;
        }
        if let Some(io) = self.io.try_get() {
            io.fds.waiting().try_for_each(|operation| visit.call(operation))?;
            for target in io.slots.targets() {
                match target {
                    Target::StreamReceive(object)
                    | Target::StreamReadable(object)
                    | Target::StreamSend(object) => {
                        visit.call(object)?;
                    }
                    Target::Pipe(object) => visit.call(object)?,
                    Target::Accept(object) => visit.call(object)?,
                    Target::DatagramReadable(object) | Target::DatagramWritable(object) => {
                        visit.call(object)?;
                    }
                    Target::Watch(object) => visit.call(object)?,
                    Target::Operation(object) => visit.call(object)?,
                    Target::Nobody => {}
                }
            }
        }
        Ok(())
    }
}

impl Drop for Scheduler {
    /// A loop that nobody closed: the kernel lets go of its memory before that is freed.
    fn drop(&mut self) {
        // Nobody else can have hold of what is being dropped.
        let _ = self.release();
    }
}
