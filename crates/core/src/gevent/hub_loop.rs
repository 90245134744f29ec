//! The loop: what is scheduled, and what gevent asks of it. `turn.rs` runs it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::callback::GeventCallback;
use super::heap::Heap;
use super::polls::Poll;
use super::watcher::{GeventWatcher, PRIORITIES};
use crate::py::cell::SharedCell;
use crate::py::make::{Float, Int, py_error};
use crate::reactor::fds::Side;
use crate::reactor::scheduler::Scheduler;

const LEVELS: usize = (*PRIORITIES.end() - *PRIORITIES.start() + 1) as usize;

#[derive(Default)]
pub struct Held {
    /// The loop's engine, timers and callbacks of asyncio. `None`: destroyed.
    pub scheduler: Option<Py<Scheduler>>,
    pub callbacks: VecDeque<Py<GeventCallback>>,
    pub timers: Heap<Py<GeventWatcher>>,
    /// Watchers whose callback is to be called, by priority.
    pending: [VecDeque<Py<GeventWatcher>>; LEVELS],
    pub pending_count: usize,
    /// The active watchers of each `Moment`.
    pub moments: [Vec<Py<GeventWatcher>>; 4],
    /// The other active watchers that nothing else here refers to.
    pub kept: Vec<Py<GeventWatcher>>,
    /// Async watchers to which another thread, or this one, has sent.
    pub sent: Vec<Py<GeventWatcher>>,
    polls: HashMap<(RawFd, Side), Py<Poll>>,
    /// Polls of which the engine has to be told.
    pub changed: Vec<Py<Poll>>,
    /// For how many reasons the loop goes on: active watchers that count, and what `ref` has added.
    pub references: isize,
    /// The time of the turn, in nanoseconds of the engine's clock.
    pub now: u64,
    pub broken: bool,
    /// The process was forked: the fork watchers are due.
    pub forked: bool,
    pub depth: u32,
    pub iteration: u64,
}

impl Held {
    pub fn add_pending(&mut self, priority: i8, watcher: Py<GeventWatcher>) {
        let level = (i64::from(priority) - PRIORITIES.start()) as usize;
        self.pending[level].push_back(watcher);
        self.pending_count += 1;
    }

    /// The next watcher to call: that of the highest priority, and of these the first.
    pub fn next_pending(&mut self) -> Option<Py<GeventWatcher>> {
        if self.pending_count == 0 {
            return None;
        }
        let next = self.pending.iter_mut().rev().find_map(VecDeque::pop_front)?;
        self.pending_count -= 1;
        Some(next)
    }

    fn watchers(&self) -> impl Iterator<Item = &Py<GeventWatcher>> {
        let pending = self.pending.iter().flatten();
        let moments = self.moments.iter().flatten();
        let timers = self.timers.iter();
        pending
            .chain(moments)
            .chain(timers)
            .chain(&self.kept)
            .chain(&self.sent)
    }
}

/// The native half of `proact.green.gevent_loop.Loop`.
#[pyclass(frozen, subclass, weakref, module = "proact._core")]
pub struct GeventLoop {
    pub held: SharedCell<Held>,
    /// How many polls of watched fds are in flight.
    polls_in_flight: Arc<AtomicUsize>,
}

impl GeventLoop {
    /// # Errors
    /// `ValueError` for a loop that was destroyed.
    pub fn check_open(&self) -> PyResult<()> {
        if self.held.lock().scheduler.is_some() {
            return Ok(());
        }
        Err(py_error::<PyValueError>("operation on destroyed loop"))
    }

    /// # Errors
    /// `ValueError` for a loop that was destroyed.
    pub fn scheduler(&self, py: Python<'_>) -> PyResult<Py<Scheduler>> {
        let scheduler = self
            .held
            .lock()
            .scheduler
            .as_ref()
            .map(|known| known.clone_ref(py));
        scheduler.ok_or_else(|| py_error::<PyValueError>("operation on destroyed loop"))
    }

    /// The poll of one side of an fd, made when it is first asked for.
    pub fn poll_of(slf: &Bound<'_, Self>, fd: RawFd, side: Side) -> PyResult<Py<Poll>> {
        let (py, this) = (slf.py(), slf.get());
        if let Some(known) = this.known_poll(py, fd, side) {
            return Ok(known);
        }
        let made = Poll::create(slf, fd, side, Arc::clone(&this.polls_in_flight))?;
        // Another thread may have made one meanwhile.
        let mut held = this.held.lock();
        let known = held
            .polls
            .entry((fd, side))
            .or_insert(made.clone_ref(py))
            .clone_ref(py);
        drop(held);
        Ok(known)
    }

    fn known_poll(&self, py: Python<'_>, fd: RawFd, side: Side) -> Option<Py<Poll>> {
        let held = self.held.lock();
        held.polls.get(&(fd, side)).map(|poll| poll.clone_ref(py))
    }

    fn schedule(
        &self,
        py: Python<'_>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<GeventCallback>> {
        let callback = GeventCallback::create(py, callback.unbind(), args.unbind())?;
        let mut held = self.held.lock();
        if held.scheduler.is_none() {
            drop(held);
            return Err(py_error::<PyValueError>("operation on destroyed loop"));
        }
        held.callbacks.push_back(callback.clone_ref(py));
        Ok(callback)
    }

    /// Ends the wait of the loop, or makes its next wait short. Any thread may call it.
    pub fn wake(&self, py: Python<'_>) {
        if let Ok(scheduler) = self.scheduler(py) {
            scheduler.get().wake();
        }
    }

    /// Whether asyncio's part of the loop has anything ready, timed or in flight.
    pub fn has_asyncio_work(&self, py: Python<'_>, scheduler: &Scheduler) -> PyResult<bool> {
        scheduler.has_more_than(py, self.polls_in_flight.load(Ordering::Relaxed))
    }

    /// The engine's time now, which becomes the time of the turn.
    pub fn read_clock(&self, py: Python<'_>) -> u64 {
        let Ok(scheduler) = self.scheduler(py) else {
            return 0;
        };
        let now = scheduler.get().now();
        self.held.lock().now = now;
        now
    }
}

#[pymethods]
impl GeventLoop {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn py_new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> GeventLoop {
        GeventLoop {
            held: SharedCell::new(Held::default()),
            polls_in_flight: Arc::default(),
        }
    }

    /// Takes an event loop: at first, or in place of one that a forked child must not use.
    fn _attach(&self, py: Python<'_>, scheduler: Py<Scheduler>) {
        let now = scheduler.get().now();
        let mut held = self.held.lock();
        let old = held.scheduler.replace(scheduler);
        held.now = now;
        let mut lost = Vec::new();
        if old.is_some() {
            held.forked = true;
            for poll in held.polls.values() {
                poll.get().lose();
                lost.push(poll.clone_ref(py));
            }
        }
        let replaced = std::mem::replace(&mut held.changed, lost);
        drop(held);
        drop((old, replaced));
    }

    /// Lets go of the event loop, and of all that is scheduled.
    fn _detach(&self) {
        let old = std::mem::take(&mut *self.held.lock());
        drop(old);
    }

    /// Whether the event loop belongs to the process from which this one was forked.
    fn _is_forked(&self, py: Python<'_>) -> bool {
        self.scheduler(py)
            .is_ok_and(|scheduler| scheduler.get().is_forked())
    }

    /// Whether asyncio's part of the loop has anything ready, timed or in flight.
    fn _has_asyncio_work(&self, py: Python<'_>) -> PyResult<bool> {
        self.has_asyncio_work(py, self.scheduler(py)?.get())
    }

    /// Calls `func(*args)` soon: in this turn, if the loop is calling such functions at this moment.
    #[pyo3(signature = (func, *args))]
    fn run_callback(
        &self,
        py: Python<'_>,
        func: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<GeventCallback>> {
        self.schedule(py, func, args)
    }

    /// The same from any thread.
    #[pyo3(signature = (func, *args))]
    fn run_callback_threadsafe(
        &self,
        py: Python<'_>,
        func: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<Py<GeventCallback>> {
        let callback = self.schedule(py, func, args)?;
        self.wake(py);
        Ok(callback)
    }

    /// The time of the turn, in seconds of a clock that only goes forward.
    fn now(&self) -> Float {
        Float(self.held.lock().now as f64 / 1e9)
    }

    /// Makes the time of the turn the time of this moment.
    fn update_now(&self, py: Python<'_>) {
        self.read_clock(py);
    }

    /// Has the run end after what it does now. (libev tells one level of nested runs from all; here each is ended.)
    #[pyo3(signature = (how = None))]
    fn break_(&self, how: Option<Bound<'_, PyAny>>) {
        let _ = how;
        self.held.lock().broken = true;
    }

    /// Makes the loop go on until `unref`.
    fn r#ref(&self) {
        self.held.lock().references += 1;
    }

    fn unref(&self) {
        self.held.lock().references -= 1;
    }

    /// Forgets the functions that `run_callback` has scheduled.
    fn _forget_callbacks(&self) {
        let old = std::mem::take(&mut self.held.lock().callbacks);
        drop(old);
    }

    /// The fd is about to be closed. Watchers that are active are told that it is ready. True: some were, and the program
    /// closes the fd after they had their turn.
    fn closing_fd(&self, py: Python<'_>, fd: RawFd) -> bool {
        let Ok(scheduler) = self.scheduler(py) else {
            return false;
        };
        let mut told = false;
        for side in [Side::Read, Side::Write] {
            let Some(poll) = self.known_poll(py, fd, side) else {
                continue;
            };
            for watcher in poll.get().watchers(py) {
                GeventWatcher::feed(watcher.bind(py), super::watcher::READ | super::watcher::WRITE);
                told = true;
            }
            Poll::let_go(poll.bind(py), scheduler.get());
        }
        told
    }

    /// The fd is about to be closed, or to be somebody else's: makes the kernel let go of its file, unless watchers are active.
    fn _let_go(&self, py: Python<'_>, fd: RawFd) {
        let Ok(scheduler) = self.scheduler(py) else { return };
        for side in [Side::Read, Side::Write] {
            if let Some(poll) = self.known_poll(py, fd, side) {
                Poll::let_go(poll.bind(py), scheduler.get());
            }
        }
    }

    /// How many watchers make the loop go on.
    #[getter]
    fn activecnt(&self) -> PyResult<Int> {
        self.check_open()?;
        let held = self.held.lock();
        Ok(Int::new(held.references as i64 + held.callbacks.len() as i64))
    }

    #[getter]
    fn pendingcnt(&self) -> usize {
        self.held.lock().pending_count
    }

    #[getter]
    fn iteration(&self) -> u64 {
        self.held.lock().iteration
    }

    #[getter]
    fn depth(&self) -> u32 {
        self.held.lock().depth
    }

    /// How many functions `run_callback` has scheduled.
    #[getter]
    fn _callback_count(&self) -> usize {
        self.held.lock().callbacks.len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(held) = self.held.look() else {
            return Ok(());
        };
        visit.call(&held.scheduler)?;
        held.callbacks
            .iter()
            .try_for_each(|callback| visit.call(callback))?;
        held.watchers().try_for_each(|watcher| visit.call(watcher))?;
        held.changed.iter().try_for_each(|poll| visit.call(poll))?;
        held.polls.values().try_for_each(|poll| visit.call(poll))
    }

    fn __clear__(&self) {
        self._detach();
    }
}
