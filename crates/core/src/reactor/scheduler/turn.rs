//! One turn of the loop: let the engine wait (its only system call, and the only place that
//! releases the GIL), dispatch every completion, move due timers to the ready queue, run what is ready. Exceptions of
//! callbacks go to the loop's exception handler; `SystemExit` and `KeyboardInterrupt` end the run with everything left
//! in its place.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;

use super::{Scheduler, engine_error, forked};
use crate::py::call::{exception, one_after_other, stops_the_loop};
use crate::py::make::Float;
use crate::reactor::handle::{Callback, Failure, Handle};
use crate::reactor::ready::Ready;
use crate::reactor::target::Arrived;

/// With callbacks ready, an engine that can only be asked by a system call is asked at least this often (ns).
const POLL_INTERVAL: u64 = 20_000;

impl Scheduler {
    /// When something begins that may call the program, in debug mode.
    fn begun(&self) -> Option<u64> {
        self.is_debug().then(|| self.now())
    }

    /// Tells of what has kept the loop for too long, in debug mode. asyncio's own handles are timed by `_run_debug`.
    fn tell_if_slow<'py>(
        &self,
        slf: &Bound<'py, Self>,
        begun: Option<u64>,
        what: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let Some(begun) = begun else { return Ok(()) };
        let took = self.now().saturating_sub(begun) as f64 / 1e9;
        match what() {
            Some(what) => self
                .hooks()?
                .took
                .bind(slf.py())
                .call1((slf, what, Float(took)))
                .map(drop),
            None => Ok(()),
        }
    }

    fn dispatch(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        loop {
            if self.is_forked() {
                // The completions are the parent's.
                return Ok(());
            }
            let arrived = self.io.get()?.pop(py);
            let arrived = match arrived {
                Ok(Some(arrived)) => arrived,
                Ok(None) => return Ok(()),
                // It stays for the next turn: callbacks run in between, and may free some memory.
                Err(error) => return Scheduler::report(slf, "No memory for what has arrived", error),
            };
            let begun = self.begun();
            let (target, completion, data) = arrived;
            let arrived = Arrived {
                completion,
                data,
                ready: &self.ready,
            };
            target.complete(py, arrived)?;
            self.tell_if_slow(slf, begun, || target.calls_program(py).cloned())?;
        }
    }

    /// How long the engine may wait: `None` without end.
    fn timeout(&self, py: Python<'_>) -> PyResult<Option<Duration>> {
        if self.stopping.load(Ordering::Relaxed) || !self.ready.lock().is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        // What is dropped here is dropped without a guard.
        let mut dead = Vec::new();
        let next = {
            let mut timers = self.timers.get()?;
            if timers.is_empty() {
                None
            } else {
                timers.next(py, &mut dead)
            }
        };
        drop(dead);
        Ok(next.map(|when| Duration::from_nanos(when.saturating_sub(self.now()))))
    }

    /// Lets the engine submit, wait and collect. False: there is nothing to submit or to dispatch.
    fn wait(&self, py: Python<'_>) -> PyResult<bool> {
        if self.is_forked() {
            // A child may go on with what needs no engine, so that it can end as it wants to (`sys.exit` in a callback,
            // the clean-up of `asyncio.run`).
            return if self.stopping.load(Ordering::Relaxed) || !self.ready.lock().is_empty() {
                Ok(false)
            } else {
                Err(forked())
            };
        }
        {
            let io = self.io.get()?;
            if self.ready.is_waiting() && !io.has_batch() && io.driver.has_work() == Some(false) {
                // The way of a turn that only calls back.
                return Ok(false);
            }
        }
        let timeout = self.timeout(py)?;
        let mut io = self.io.get()?;
        if io.has_batch() {
            // A run that was interrupted left some undispatched.
            return Ok(true);
        }
        if timeout == Some(Duration::ZERO) {
            match io.driver.has_work() {
                Some(false) => return Ok(false),
                Some(true) => {}
                None => {
                    let time = self.now();
                    let next_poll = self.last_poll.load(Ordering::Relaxed) + POLL_INTERVAL;
                    if time < next_poll && !self.stopping.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    self.last_poll.store(time, Ordering::Relaxed);
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

    fn turn(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        if self.orphaned.load(Ordering::Relaxed) {
            self.adopt(&mut *self.io.get()?);
        }
        if self.wait(py)? {
            self.dispatch(slf)?;
        }
        self.move_due_timers(py)?;
        self.run_ready(slf)
    }

    fn move_due_timers(&self, py: Python<'_>) -> PyResult<()> {
        if !self.timed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What is dropped here is dropped without a guard.
        let mut dead = Vec::new();
        {
            let mut timers = self.timers.get()?;
            timers.due(py, self.now(), &mut self.ready.lock(), &mut dead);
            self.timed.store(!timers.is_empty(), Ordering::Relaxed);
        }
        drop(dead);
        Ok(())
    }

    /// Runs what is ready now; what becomes ready meanwhile waits for the next turn. A callback may run turns of its own, which
    /// begin with what is left of this one.
    fn run_ready(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        self.ready.lock().begin();
        let mut spare = None;
        loop {
            let next = self.ready.lock().next(spare.take());
            let Some(next) = next else { return Ok(()) };
            let begun = self.begun();
            let outcome = match next {
                Ready::Callback(Callback::Native(native)) => {
                    let outcome = self.run_native(slf, &native, begun, Handle::run);
                    spare = Handle::recycle(&native, py).then_some(native);
                    outcome
                }
                Ready::Callback(Callback::Debug(debug)) => self.run_debug(slf, &debug),
                Ready::Method(method) => match method.call(py) {
                    Ok(Some(Callback::Native(native))) => {
                        self.run_native(slf, &native, begun, Handle::run_again)
                    }
                    Ok(Some(Callback::Debug(debug))) => self.run_debug(slf, &debug),
                    Ok(None) => self.tell_if_slow(slf, begun, || Some(method.object().bind(py).clone())),
                    Err(error) => Err(error),
                },
            };
            if outcome.is_err() {
                self.ready.lock().put_back();
                return outcome;
            }
        }
    }

    #[inline]
    fn run_native(
        &self,
        slf: &Bound<'_, Self>,
        native: &Py<Handle>,
        begun: Option<u64>,
        run: impl FnOnce(&Handle, Python<'_>) -> Result<(), Failure>,
    ) -> PyResult<()> {
        let py = slf.py();
        // Once it has run it does not know any more what.
        let shown = begun.and_then(|_| native.bind(py).repr().ok());
        match run(native.get(), py) {
            Ok(()) => self.tell_if_slow(slf, begun, || shown.map(Bound::into_any)),
            Err(failure) => self.callback_failed(slf, native, failure),
        }
    }

    fn run_debug(&self, slf: &Bound<'_, Self>, handle: &Py<PyAny>) -> PyResult<()> {
        let run = self.hooks()?.run_debug.bind(slf.py());
        run.call1((slf, handle)).map(drop)
    }

    fn callback_failed(&self, slf: &Bound<'_, Self>, handle: &Py<Handle>, failure: Failure) -> PyResult<()> {
        let py = slf.py();
        let Failure { error, call } = failure;
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        let failed = self.hooks()?.callback_failed.bind(py);
        failed
            .call1((slf, call.callback, call.args, exception(py, &error), handle))
            .map(drop)
    }

    /// Turns of the loop until it is stopped, or a `single` one.
    pub fn run(slf: &Bound<'_, Self>, single: bool) -> PyResult<()> {
        let this = slf.get();
        loop {
            let outcome = this.turn(slf);
            if single || outcome.is_err() || this.stopping.load(Ordering::Relaxed) {
                if this.is_forked() {
                    return outcome;
                }
                let mut io = this.io.get()?;
                // What was asked for last (a cancel, a close) is on its way before the loop stands still.
                let handed_over = io.driver.flush().map_err(engine_error);
                // The next run may be another thread's.
                io.driver.unbind();
                drop(io);
                return one_after_other(slf.py(), outcome, handed_over);
            }
        }
    }
}
