//! Runs the loop. One turn: what `run_callback` has scheduled; then the engine waits, and asyncio's part of the loop runs; then
//! the watchers whose events have come are called, by priority.
//!
//! Other greenlets run within the calls. Between two calls nothing is kept but references, and each step looks at the loop anew:
//! it may have been broken, destroyed, or moved to a new engine in a forked child.

use std::time::Duration;

use pyo3::prelude::*;

use super::hub_loop::GeventLoop;
use super::polls::Poll;
use super::watcher::{GeventWatcher, HAPPENED, Moment};
use crate::py::call::{call_tuple, exception, one_after_other};
use crate::py::make::name;
use crate::reactor::handle::Handle;
use crate::reactor::scheduler::Scheduler;

/// So many functions are called before the clock is read.
const BETWEEN_LOOKS: u32 = 50;

/// Functions that schedule each other keep the loop from waiting for this long, in nanoseconds, unless
/// `sys.setswitchinterval` says something else.
fn switch_interval(py: Python<'_>) -> u64 {
    let interval = py
        .import(name!("sys"))
        .and_then(|sys| sys.call_method0(name!("getswitchinterval")))
        .and_then(|interval| interval.extract::<f64>());
    interval.map_or(5_000_000, |interval| (interval * 1e9) as u64)
}

impl GeventLoop {
    /// Tells gevent of an error. `context`: the watcher or callback that failed, or nothing for an error that is to reach the
    /// main greenlet.
    fn handle_error(slf: &Bound<'_, Self>, context: Option<&Bound<'_, PyAny>>, error: PyErr) {
        let py = slf.py();
        let told = Self::tell(slf, context, &error);
        let Err(second) = told else { return };
        // Telling has switched to the main greenlet, which has thrown something into the hub.
        drop(error);
        if let Err(third) = Self::tell(slf, context, &second) {
            third.write_unraisable(py, None);
        }
    }

    fn tell(slf: &Bound<'_, Self>, context: Option<&Bound<'_, PyAny>>, error: &PyErr) -> PyResult<()> {
        let py = slf.py();
        let value = exception(py, error);
        let args = (context, error.get_type(py), value, error.traceback(py));
        slf.call_method1(name!("handle_error"), args).map(drop)
    }

    fn run_callbacks(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        let mut left = BETWEEN_LOOKS;
        let begun = this.held.lock().now;
        loop {
            let Some(callback) = this.held.lock().callbacks.pop_front() else {
                return;
            };
            if let Some((function, args)) = callback.get().begin(py) {
                let outcome = call_tuple(py, &function, &args).map(drop);
                drop((function, args));
                if let Err(error) = outcome {
                    Self::handle_error(slf, Some(callback.bind(py)), error);
                }
                callback.get().finish();
            }
            left -= 1;
            if left == 0 {
                left = BETWEEN_LOOKS;
                if this.read_clock(py).saturating_sub(begun) >= switch_interval(py) {
                    return;
                }
            }
        }
    }

    fn invoke_pending(slf: &Bound<'_, Self>) {
        loop {
            let Some(watcher) = slf.get().held.lock().next_pending() else {
                return;
            };
            let watcher = watcher.bind(slf.py());
            if let Err(error) = GeventWatcher::invoke(watcher) {
                Self::handle_error(slf, Some(watcher), error);
            }
        }
    }

    fn feed_moment(slf: &Bound<'_, Self>, moment: Moment) {
        let py = slf.py();
        let watchers: Vec<Py<GeventWatcher>> = {
            let held = slf.get().held.lock();
            let watchers = &held.moments[moment as usize];
            if watchers.is_empty() {
                return;
            }
            watchers.iter().map(|watcher| watcher.clone_ref(py)).collect()
        };
        for watcher in watchers {
            GeventWatcher::feed(watcher.bind(py), HAPPENED);
        }
    }

    /// What is due by the clock, and what was sent from other threads.
    fn collect(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        let now = this.read_clock(py);
        let mut dead = Vec::new();
        loop {
            let due = this
                .held
                .lock()
                .timers
                .due(now, GeventWatcher::counts_as, &mut dead);
            let Some(timer) = due else { break };
            GeventWatcher::expire(timer.bind(py), now);
        }
        let sent = std::mem::take(&mut this.held.lock().sent);
        for watcher in sent {
            if watcher.get().held.lock().active {
                GeventWatcher::feed(watcher.bind(py), HAPPENED);
            }
        }
        drop(dead);
    }

    /// How long the engine may wait. `None`: until something happens.
    fn limit(&self, alive: bool) -> Option<Duration> {
        let mut dead = Vec::new();
        let (next, now) = {
            let mut held = self.held.lock();
            let idle = &held.moments[Moment::Idle as usize];
            if !alive
                || held.broken
                || !held.callbacks.is_empty()
                || held.pending_count > 0
                || !held.sent.is_empty()
                || !idle.is_empty()
            {
                return Some(Duration::ZERO);
            }
            if held.timers.is_empty() {
                return None;
            }
            let next = held.timers.next(GeventWatcher::counts_as, &mut dead);
            (next, held.now)
        };
        drop(dead);
        next.map(|when| Duration::from_nanos(when.saturating_sub(now)))
    }

    /// The engine waits, and what has come for asyncio is delivered, with asyncio's loop set as the running one. Greenlets don't
    /// see it.
    fn wait(slf: &Bound<'_, Self>, limit: Option<Duration>, spare: &mut Option<Py<Handle>>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.scheduler(py)?;
        let scheduler = scheduler.bind(py);
        Poll::settle(py, this, scheduler.get())?;
        // A poll that was refused has made a watcher pending.
        let limit = if this.held.lock().pending_count > 0 {
            Some(Duration::ZERO)
        } else {
            limit
        };
        scheduler.get().wait_at_most(scheduler, limit)?;
        if !this.has_asyncio_work(py, scheduler.get())? {
            return Scheduler::deliver(scheduler, spare);
        }
        let before = slf.call_method0(name!("_enter_asyncio"))?;
        let outcome = Scheduler::deliver(scheduler, spare);
        let left = slf.call_method1(name!("_leave_asyncio"), (before,)).map(drop);
        one_after_other(py, outcome, left)
    }

    /// Whether there is anything to wait for. asyncio is only asked if gevent has nothing: it takes longer.
    fn is_alive(slf: &Bound<'_, Self>) -> PyResult<bool> {
        {
            let held = slf.get().held.lock();
            if held.references > 0 || !held.callbacks.is_empty() {
                return Ok(true);
            }
        }
        slf.call_method0(name!("_asyncio_waits"))?.is_truthy()
    }

    fn renew_if_forked(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().scheduler(slf.py())?.get().is_forked() {
            slf.call_method0(name!("_renew"))?;
        }
        Ok(())
    }

    fn iterate(slf: &Bound<'_, Self>, nowait: bool, spare: &mut Option<Py<Handle>>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        Self::renew_if_forked(slf)?;
        this.held.lock().iteration += 1;
        if std::mem::take(&mut this.held.lock().forked) {
            Self::feed_moment(slf, Moment::Fork);
        }
        Self::feed_moment(slf, Moment::Prepare);
        Self::run_callbacks(slf);
        Self::invoke_pending(slf);
        {
            let held = this.held.lock();
            if held.scheduler.is_none() || held.broken {
                return Ok(());
            }
        }
        // One of the calls may have forked.
        Self::renew_if_forked(slf)?;
        this.read_clock(py);
        let alive = !nowait && Self::is_alive(slf)?;
        if let Err(error) = Self::wait(slf, this.limit(alive), spare) {
            Self::handle_error(slf, None, error);
        }
        if this.held.lock().scheduler.is_none() {
            return Ok(());
        }
        Self::collect(slf);
        if this.held.lock().pending_count == 0 {
            Self::feed_moment(slf, Moment::Idle);
        }
        Self::feed_moment(slf, Moment::Check);
        Self::invoke_pending(slf);
        Ok(())
    }
}

#[pymethods]
impl GeventLoop {
    /// Runs turns until nothing is left to wait for. `nowait`: one turn that does not wait; `once`: one turn.
    #[pyo3(name = "_run")]
    fn run(slf: &Bound<'_, Self>, nowait: bool, once: bool) -> PyResult<()> {
        let this = slf.get();
        let mut spare = None;
        this.held.lock().broken = false;
        this.held.lock().depth += 1;
        let outcome = loop {
            if let Err(error) = Self::iterate(slf, nowait, &mut spare) {
                break Err(error);
            }
            let over = {
                let held = this.held.lock();
                held.scheduler.is_none() || held.broken
            };
            if over || nowait || once {
                break Ok(());
            }
            match Self::is_alive(slf) {
                Ok(true) => {}
                outcome => break outcome.map(drop),
            }
        };
        {
            let mut held = this.held.lock();
            held.broken = false;
            held.depth = held.depth.saturating_sub(1);
        }
        let rest = match this.scheduler(slf.py()) {
            Ok(scheduler) if !scheduler.get().is_forked() => scheduler.get().rest(),
            _ => Ok(()),
        };
        one_after_other(slf.py(), outcome, rest)
    }
}
