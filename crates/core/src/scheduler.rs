//! The scheduler: the ready queue, the timers, the engine, and one turn of the loop.
//!
//! A turn: flush what was written, let the engine wait (its only system call, and the only place that releases the
//! GIL), dispatch every completion, move due timers to the ready queue, run what is ready. Exceptions of callbacks go to
//! the loop's exception handler; `SystemExit` and `KeyboardInterrupt` end the run with everything left in its place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use proact_driver::{Config, Engine, Generation, Waker, explain, open};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::call::{current_context, exception, io_error, stops_the_loop};
use crate::cell::LoopCell;
use crate::handle::{Failure, Handle, TimerHandle};
use crate::io::{Arrived, Closed, Io};
use crate::readers::Readers;
use crate::ready::{Queue, Ready};
use crate::slots::Target;
use crate::timers::{Timers, nanoseconds, now};
use crate::transport::datagram::DatagramTransport;
use crate::transport::listener::Listener;
use crate::transport::pipe::PipeTransport;
use crate::transport::stream::StreamTransport;

/// With callbacks ready, an engine that can only be asked by a system call is asked at least this often (ns).
const POLL_INTERVAL: u64 = 20_000;
/// How long closing waits for the kernel to let go of memory.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);
/// Transports in the flush list after which a long dispatch hands them over before it goes on.
const EARLY_FLUSH: usize = 32;

/// What a run works through, kept from turn to turn for its memory.
#[derive(Default)]
struct Turn {
    running: VecDeque<Ready>,
    /// Handles that have run and that nobody holds any more, and how many of them are wanted.
    spare: Vec<Py<Handle>>,
    room: usize,
    due: Vec<Ready>,
    dead: Vec<Ready>,
    flushing: Vec<Py<StreamTransport>>,
    last_poll: u64,
}

/// The native half of `proact.EventLoop`.
#[pyclass(frozen, subclass, module = "proact._core")]
pub struct Scheduler {
    pub(crate) io: LoopCell<Io>,
    pub(crate) readers: LoopCell<Readers>,
    ready: Mutex<Queue>,
    timers: LoopCell<Timers>,
    waker: Mutex<Waker>,
    engine: Engine,
    generation: Generation,
    stopping: AtomicBool,
    closed: AtomicBool,
    debug: AtomicBool,
    server_takes_transport: OnceLock<bool>,
    buffered_protocol: OnceLock<Py<PyAny>>,
    plain_socket: OnceLock<Py<PyAny>>,
}

/// How an engine's error shows: a forked child is told what is wrong.
fn engine_error(error: std::io::Error) -> PyErr {
    if error.raw_os_error() == Some(libc::EOWNERDEAD) {
        return PyRuntimeError::new_err(
            "this event loop belongs to the parent process; a forked child must make a loop of its own",
        );
    }
    io_error(error)
}

impl Scheduler {
    fn ready(&self) -> MutexGuard<'_, Queue> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).wake();
    }

    pub fn push(&self, handle: Ready) {
        self.ready().due.push_back(handle);
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
        let mut ready = self.ready();
        let handle = match ready.spare.pop() {
            Some(handle) => {
                handle.get().refill(callback, args, context);
                handle
            }
            None => {
                drop(ready);
                let handle = Handle::create(py, callback, args, context)?;
                ready = self.ready();
                handle
            }
        };
        ready.due.push_back(Ready::Native(handle.clone_ref(py)));
        Ok(handle)
    }

    /// Callbacks that are ready or wait for their time.
    pub fn scheduled(&self) -> PyResult<usize> {
        Ok(self.ready().due.len() + self.timers.get()?.len())
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
    /// `RuntimeError` for a closed loop, and in a forked child, where using it would corrupt the parent's.
    pub fn check_closed(&self) -> PyResult<()> {
        if self.is_closed() {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        if self.is_forked() {
            return Err(engine_error(std::io::Error::from_raw_os_error(libc::EOWNERDEAD)));
        }
        Ok(())
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
                .import("asyncio.base_events")?
                .call_method1("_check_ssl_socket", (socket,))
                .map(drop),
        }
    }

    pub fn join_flush(&self, transport: Py<StreamTransport>) -> PyResult<()> {
        self.io.get()?.flush.push(transport);
        Ok(())
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

    /// Sends what was written since the last flush.
    fn flush_writes(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<()> {
        std::mem::swap(&mut self.io.get()?.flush, &mut turn.flushing);
        let mut outcome = Ok(());
        for transport in turn.flushing.drain(..) {
            let flushed = StreamTransport::flush(transport.bind(py));
            // One that stops the loop does not keep the others' writes back.
            outcome = outcome.and(flushed);
        }
        outcome
    }

    fn dispatch(&self, slf: &Bound<'_, Self>, turn: &mut Turn) -> PyResult<()> {
        let py = slf.py();
        loop {
            let (arrived, written) = {
                let mut io = self.io.get()?;
                let Some(arrived) = io.pop(py)? else { return Ok(()) };
                (arrived, io.flush.len())
            };
            let Arrived {
                completion,
                target,
                data,
            } = arrived;
            let begun = self.is_debug().then(now);
            match &target {
                Target::StreamReceive(transport) => {
                    StreamTransport::received(transport.bind(py), &completion, data)?;
                }
                Target::StreamReadable(transport) => {
                    StreamTransport::readable(transport.bind(py), &completion)?
                }
                Target::StreamSend(transport) => StreamTransport::sent(transport.bind(py), &completion)?,
                Target::Pipe(pipe) => PipeTransport::ready(pipe.bind(py), &completion)?,
                Target::Accept(listener) => Listener::accepted(listener.bind(py), &completion)?,
                Target::DatagramReadable(transport) => {
                    DatagramTransport::readable(transport.bind(py), &completion)?
                }
                Target::DatagramWritable(transport) => {
                    DatagramTransport::writable(transport.bind(py), &completion)?
                }
                // A child that somebody else has collected (ECHILD) has ended too.
                Target::Watch(watch) if completion.result >= 0 || completion.result == -libc::ECHILD => {
                    self.push(Ready::Watch(watch.clone_ref(py)))
                }
                Target::Watch(_) => {}
                Target::Operation(operation) => {
                    operation.get().completed(py, operation, completion.result)?
                }
                Target::Nobody => {}
            }
            if let Some(begun) = begun
                && let Some(owner) = target.owner(py)
            {
                let took = now().saturating_sub(begun) as f64 / 1e9;
                let limit: f64 = slf.getattr(intern!(py, "slow_callback_duration"))?.extract()?;
                if took >= limit {
                    slf.call_method1(intern!(py, "_slow"), (owner, took))?;
                }
            }
            if written >= EARLY_FLUSH {
                self.flush_writes(py, turn)?;
                self.io.get()?.driver.flush().map_err(engine_error)?;
            }
        }
    }

    /// How long the engine may wait: `None` without end.
    fn timeout(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<Option<Duration>> {
        if self.stopping.load(Ordering::Relaxed) || !self.ready().due.is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        let next = {
            let mut timers = self.timers.get()?;
            if timers.is_empty() {
                None
            } else {
                timers.next(py, &mut turn.dead)
            }
        };
        turn.dead.clear();
        Ok(next.map(|when| Duration::from_nanos(when.saturating_sub(now()))))
    }

    /// Lets the engine submit, wait and collect. False: there is nothing to flush, to submit or to dispatch.
    fn wait(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<bool> {
        {
            let io = self.io.get()?;
            if !io.flush.is_empty() {
                drop(io);
                self.flush_writes(py, turn)?;
            } else if !self.ready().due.is_empty() && !io.has_batch() && io.driver.has_work() == Some(false) {
                // The way of a turn that only calls back.
                return Ok(false);
            }
        }
        let timeout = self.timeout(py, turn)?;
        let mut io = self.io.get()?;
        // What was written during the flush (by a `resume_writing`) leaves in the next turn, which must come.
        let timeout = if io.flush.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        if io.has_batch() {
            // A run that was interrupted left some undispatched.
            return Ok(true);
        }
        if timeout == Some(Duration::ZERO) {
            match io.driver.has_work() {
                Some(false) => return Ok(false),
                Some(true) => {}
                None => {
                    let time = now();
                    if time < turn.last_poll + POLL_INTERVAL && !self.stopping.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    turn.last_poll = time;
                }
            }
            return io.wait(timeout).map(|()| true).map_err(engine_error);
        }
        let outcome = {
            let io = &mut *io;
            py.detach(|| io.wait(timeout))
        };
        drop(io);
        outcome.map_err(engine_error)?;
        py.check_signals()?;
        Ok(true)
    }

    fn turn(&self, slf: &Bound<'_, Self>, turn: &mut Turn) -> PyResult<()> {
        let py = slf.py();
        if self.wait(py, turn)? {
            self.dispatch(slf, turn)?;
        }
        self.move_due_timers(py, turn)?;
        self.run_ready(slf, turn)
    }

    fn move_due_timers(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<()> {
        {
            let mut timers = self.timers.get()?;
            if timers.is_empty() {
                return Ok(());
            }
            timers.due(py, now(), &mut turn.due, &mut turn.dead);
        }
        if !turn.due.is_empty() {
            self.ready().due.extend(turn.due.drain(..));
        }
        turn.dead.clear();
        Ok(())
    }

    /// Runs what is ready now; what becomes ready meanwhile waits for the next turn.
    fn run_ready(&self, slf: &Bound<'_, Self>, turn: &mut Turn) -> PyResult<()> {
        let py = slf.py();
        {
            let mut ready = self.ready();
            ready.begin(&mut turn.running, &mut turn.spare);
            turn.room = ready.room();
        }
        while let Some(handle) = turn.running.pop_front() {
            let outcome = match handle {
                Ready::Native(native) => {
                    let outcome = match native.get().run(py) {
                        Ok(()) => Ok(()),
                        Err(failure) => self.callback_failed(slf, &native, failure),
                    };
                    if turn.spare.len() < turn.room && Handle::recycle(&native, py) {
                        turn.spare.push(native);
                    }
                    outcome
                }
                Ready::Debug(debug) => self.run_debug(slf, &debug),
                Ready::Watch(watch) => match watch.get().current(py)? {
                    Some(Ready::Native(native)) => match native.get().run_again(py) {
                        Ok(()) => Ok(()),
                        Err(failure) => self.callback_failed(slf, &native, failure),
                    },
                    Some(Ready::Debug(debug)) => self.run_debug(slf, &debug),
                    _ => Ok(()),
                },
                Ready::Datagrams(transport) => DatagramTransport::take(transport.bind(py)),
            };
            if outcome.is_err() {
                let mut ready = self.ready();
                while let Some(handle) = turn.running.pop_back() {
                    ready.due.push_front(handle);
                }
                return outcome;
            }
        }
        Ok(())
    }

    fn run_debug(&self, slf: &Bound<'_, Self>, handle: &Py<PyAny>) -> PyResult<()> {
        slf.call_method1(intern!(slf.py(), "_run_debug"), (handle,))
            .map(drop)
    }

    fn callback_failed(&self, slf: &Bound<'_, Self>, handle: &Py<Handle>, failure: Failure) -> PyResult<()> {
        let py = slf.py();
        let Failure { error, shown } = failure;
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        slf.call_method1("_callback_failed", (shown, exception(py, &error), handle))
            .map(drop)
    }

    /// Ends the engine, and drops all that waits for it or for its time.
    fn release(&self) -> PyResult<()> {
        let (left, targets, flush) = {
            let mut io = self.io.get()?;
            // A forked child only lets go of its copies.
            let left = if self.is_forked() {
                0
            } else {
                io.driver.shutdown(SHUTDOWN_LIMIT)
            };
            // The engine's fds go now, whoever still holds the loop.
            let closed = Box::new(Closed::after(&*io.driver));
            io.driver = closed;
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Waker::detached();
            (left, io.slots.drain(), std::mem::take(&mut io.flush))
        };
        if left > 0 {
            // The kernel may still write to their memory: better lost than freed.
            std::mem::forget(targets);
        }
        drop(flush);
        let readers = std::mem::take(&mut *self.readers.get()?);
        drop(readers);
        let ready = std::mem::take(&mut *self.ready());
        ready.due.iter().for_each(Ready::discard);
        let timers = self.timers.get()?.drain();
        timers.iter().for_each(Ready::discard);
        Ok(())
    }

    #[inline]
    fn schedule(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
        check_thread: bool,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_closed()?;
        if this.is_debug() {
            let handle = slf
                .call_method1("_debug_handle", (callback, args, context, check_thread))?
                .unbind();
            this.push(Ready::Debug(handle.clone_ref(py)));
            return Ok(handle);
        }
        let context = context_or_current(py, context)?;
        let handle = this.soon(py, callback.unbind(), args.unbind(), context)?;
        Ok(handle.into_any())
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
        this.check_closed()?;
        if this.is_debug() {
            let handle = slf
                .call_method1("_debug_timer", (when, callback, args, context))?
                .unbind();
            this.timers
                .get()?
                .push(nanoseconds(when), Ready::Debug(handle.clone_ref(py)));
            return Ok(handle);
        }
        let context = context_or_current(py, context)?;
        let handle = Handle::new(callback.unbind(), args.unbind(), context);
        let cancelled = this.timers.get()?.cancelled.clone();
        let timer = TimerHandle::create(py, when, handle, cancelled)?;
        let base = timer.bind(py).as_super().clone().unbind();
        this.timers.get()?.push(nanoseconds(when), Ready::Native(base));
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
            .ok_or_else(|| PyValueError::new_err(format!("no engine is named {engine:?}")))?;
        let driver = open(engine, &Config::default()).map_err(|error| {
            let message = format!(
                "the {} engine can't be had here: {}",
                engine.name(),
                explain(engine, &error)
            );
            PyOSError::new_err((error.raw_os_error().unwrap_or(libc::ENOSYS), message))
        })?;
        Ok(Scheduler {
            waker: Mutex::new(driver.waker()),
            io: LoopCell::new(Io::new(driver)),
            readers: LoopCell::new(Readers::default()),
            ready: Mutex::default(),
            timers: LoopCell::new(Timers::default()),
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
    fn engine(&self) -> &'static str {
        self.engine.name()
    }

    /// Turns of the loop until it is stopped; a single one for who calls this outside of a run.
    #[pyo3(name = "_run_once")]
    fn run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_closed()?;
        let single = slf.getattr(intern!(slf.py(), "_thread_id"))?.is_none();
        let mut turn = Turn::default();
        loop {
            let outcome = slf.get().turn(slf, &mut turn);
            if single || outcome.is_err() || slf.get().stopping.load(Ordering::Relaxed) {
                // What was written last leaves before the loop stands still.
                let flushed = slf.get().flush_writes(slf.py(), &mut turn);
                let mut io = slf.get().io.get()?;
                let handed_over = io.driver.flush().map_err(engine_error);
                // The next run may be another thread's.
                io.driver.unbind();
                return outcome.and(flushed).and(handed_over);
            }
        }
    }

    /// The time of the loop, in seconds of the monotonic clock.
    fn time(&self) -> f64 {
        now() as f64 / 1e9
    }

    /// Schedules a callback for the next turn.
    #[pyo3(signature = (callback, *args, context = None))]
    fn call_soon(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Scheduler::schedule(slf, callback, args, context, true)
    }

    /// The same from any thread, waking the loop if it sleeps.
    #[pyo3(signature = (callback, *args, context = None))]
    fn call_soon_threadsafe(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let handle = Scheduler::schedule(slf, callback, args, context, false)?;
        slf.get().wake();
        Ok(handle)
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
        let delay = delay.ok_or_else(|| PyTypeError::new_err("delay must not be None"))?;
        Scheduler::schedule_at(slf, slf.get().time() + delay, callback, args, context)
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
        let when = when.ok_or_else(|| PyTypeError::new_err("when cannot be None"))?;
        Scheduler::schedule_at(slf, when, callback, args, context)
    }

    #[pyo3(name = "_write_to_self")]
    fn write_to_self(&self) {
        self.wake();
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    #[setter(_stopping)]
    fn set_stopping(&self, value: bool) {
        self.stopping.store(value, Ordering::Relaxed);
    }

    #[getter(_closed)]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn set_closed(&self, value: bool) {
        self.closed.store(value, Ordering::Relaxed);
    }

    #[getter(_debug)]
    fn debug(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug_flag(&self, value: bool) {
        self.debug.store(value, Ordering::Relaxed);
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
        if let Ok(ready) = self.ready.try_lock() {
            ready.due.iter().try_for_each(|handle| handle.traverse(visit))?;
        }
        if let Some(timers) = self.timers.try_get() {
            timers.handles().try_for_each(|handle| handle.traverse(visit))?;
        }
        if let Some(readers) = self.readers.try_get() {
            readers.watches().try_for_each(|watch| visit.call(watch))?;
        }
        if let Some(io) = self.io.try_get() {
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
