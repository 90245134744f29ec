//! One turn of the loop: the engine waits (the only system call of a turn, and the only place that releases the GIL), every
//! completion is dispatched, due timers move to the ready queue, and what is ready runs. Exceptions of callbacks go to the
//! loop's exception handler. `SystemExit` and `KeyboardInterrupt` end the run, and what was not dispatched or run yet stays in
//! its place.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;

use super::{Scheduler, engine_error, forked};
use crate::py::call::{exception, one_after_other, stops_the_loop};
use crate::py::make::Float;
use crate::py::method::Once;
use crate::reactor::handle::{Callback, Failure, Handle};
use crate::reactor::ready::Ready;
use crate::reactor::target::Arrived;
use crate::reactor::threadsafe::ThreadSafeHandle;

/// While callbacks are ready, an engine that can't tell without a system call is asked for work at most this often (ns).
const POLL_INTERVAL: u64 = 20_000;

/// Ops on files that end in one turn of the loop. Their tasks go on, and submit the next ones, before the turn deals with more: so the
/// device waits less, and a timer or a socket waits for a few tasks, not for as many as read.
/// (4 and 16 are no better for the device; 4 take 5 % more CPU time. docs/decisions/0016-hops-to-a-disk.md)
const FILES_AT_ONCE: u32 = 8;

impl Scheduler {
    /// The time at which something begins that may call the program; only in debug mode.
    fn begun(&self) -> Option<u64> {
        self.is_debug().then(|| self.now())
    }

    /// Reports, in debug mode, how long something has run. (`run_debug` times asyncio's own handles.)
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
        if !self.is_forked() {
            self.io.get()?.files_ended = 0;
        }
        loop {
            if self.is_forked() {
                // The completions belong to the parent process.
                return Ok(());
            }
            let arrived = {
                let mut io = self.io.get()?;
                if io.files_ended >= FILES_AT_ONCE && io.has_batch() {
                    // The rest is dispatched in the next turn, before the engine waits again.
                    return Ok(());
                }
                io.pop(py)
            };
            let arrived = match arrived {
                Ok(Some(arrived)) => arrived,
                Ok(None) => return Ok(()),
                // The completion stays for the next turn. Callbacks run before that, and may free memory.
                Err(error) => return Scheduler::report(slf, "No memory for what has arrived", error),
            };
            let begun = self.begun();
            let (target, completion, data) = arrived;
            let arrived = Arrived {
                completion,
                data,
                ready: &self.ready,
            };
            if target.calls_program(py).is_some() {
                Scheduler::show(slf)?;
            }
            target.complete(py, arrived)?;
            self.tell_if_slow(slf, begun, || target.calls_program(py).cloned())?;
        }
    }

    /// How long the engine may wait; `None`: until something happens.
    fn timeout(&self, py: Python<'_>) -> PyResult<Option<Duration>> {
        if self.stopping.load(Ordering::Relaxed) || !self.ready.lock().is_empty() {
            return Ok(Some(Duration::ZERO));
        }
        // Dropped when no cell is held, because that may run any code.
        let mut dead = Vec::new();
        let next = {
            let mut timers = self.timers.lock();
            if timers.is_empty() {
                None
            } else {
                timers.next(py, &mut dead)
            }
        };
        drop(dead);
        Ok(next.map(|when| Duration::from_nanos(when.saturating_sub(self.now()))))
    }

    /// Whether a turn would do nothing: nothing is ready or due, and the engine has not told of anything.
    pub fn has_nothing_to_do(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.ready.lock().is_empty()
            || self.stopping.load(Ordering::Relaxed)
            || self.orphaned.load(Ordering::Relaxed)
            || self.is_debug()
        {
            return Ok(false);
        }
        if self.timed.load(Ordering::Relaxed) {
            let mut dead = Vec::new();
            let next = self.timers.lock().next(py, &mut dead);
            drop(dead);
            if next.is_some_and(|when| when <= self.now()) {
                return Ok(false);
            }
        }
        let io = self.io.get()?;
        if io.has_batch() {
            return Ok(false);
        }
        Ok(match io.driver.has_work() {
            Some(has_work) => !has_work,
            None => self.now() < self.last_poll.load(Ordering::Relaxed) + POLL_INTERVAL,
        })
    }

    /// Tells the loop above if nothing is in flight but its own watch for signals. Whether it was told.
    #[cold]
    fn tell_idle(&self, slf: &Bound<'_, Self>) -> PyResult<bool> {
        {
            let io = self.io.get()?;
            if io.has_batch() || io.waits_for_more_than(slf.py(), 1) {
                return Ok(false);
            }
        }
        Scheduler::show(slf)?;
        let idle = self.hooks()?.idle.bind(slf.py());
        idle.call1((slf,)).map(|_| true)
    }

    /// Lets the engine submit, wait and collect completions. False: there is nothing to submit or to dispatch. `limit`: how long
    /// it may wait at most, for a loop above that has timers and callbacks of its own.
    fn wait(&self, slf: &Bound<'_, Self>, limit: Option<Duration>) -> PyResult<bool> {
        let py = slf.py();
        if self.is_forked() {
            // A forked child may run callbacks that need no engine, so that it can end by `sys.exit` in a callback or by the
            // clean-up of `asyncio.run`.
            return if self.stopping.load(Ordering::Relaxed) || !self.ready.lock().is_empty() {
                Ok(false)
            } else {
                Err(forked())
            };
        }
        {
            let io = self.io.get()?;
            if self.ready.is_waiting() && !io.has_batch() && io.driver.has_work() == Some(false) {
                // The fast path of a turn that only runs callbacks.
                return Ok(false);
            }
        }
        let mut timeout = self.timeout(py)?;
        if timeout.is_none() && self.tells_idle.load(Ordering::Relaxed) && self.tell_idle(slf)? {
            timeout = self.timeout(py)?;
        }
        let timeout = timeout.map_or(limit, |own| Some(limit.map_or(own, |limit| own.min(limit))));
        let mut io = self.io.get()?;
        if io.has_batch() {
            // The last turn, or an interrupted run, has left completions undispatched. What tasks have submitted need not wait
            // for them.
            return io.driver.flush().map(|()| true).map_err(engine_error);
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
        let outcome = io.wait_detached(py, timeout);
        drop(io);
        outcome.map_err(engine_error)?;
        py.check_signals()?;
        Ok(true)
    }

    /// The number of the turn. Only the loop's thread counts.
    #[inline]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// `spare`: a handle that ran last and can be filled again.
    fn turn(&self, slf: &Bound<'_, Self>, spare: &mut Option<Py<Handle>>) -> PyResult<()> {
        let py = slf.py();
        self.turns.store(self.turns() + 1, Ordering::Relaxed);
        if self.wait_at_most(slf, None)? {
            self.dispatch(slf)?;
        }
        self.move_due_timers(py)?;
        self.run_ready(slf, spare)
    }

    /// The first half of a turn, as [`Scheduler::wait`].
    #[inline]
    pub fn wait_at_most(&self, slf: &Bound<'_, Self>, limit: Option<Duration>) -> PyResult<bool> {
        if self.orphaned.load(Ordering::Relaxed) {
            self.adopt(&mut *self.io.get()?);
        }
        self.wait(slf, limit)
    }

    /// Whether anything is ready, timed or in flight, besides `own` ops of a loop above.
    pub fn has_more_than(&self, py: Python<'_>, own: usize) -> PyResult<bool> {
        let is_due = self.ready.is_waiting() || self.timed.load(Ordering::Relaxed);
        Ok(is_due || self.io.get()?.waits_for_more_than(py, own))
    }

    /// The other half of a turn of a loop above, which has made the first itself: dispatches what has come, and runs what is
    /// due.
    pub fn deliver(slf: &Bound<'_, Self>, spare: &mut Option<Py<Handle>>) -> PyResult<()> {
        let this = slf.get();
        this.turns.store(this.turns() + 1, Ordering::Relaxed);
        this.dispatch(slf)?;
        this.move_due_timers(slf.py())?;
        this.run_ready(slf, spare)
    }

    fn move_due_timers(&self, py: Python<'_>) -> PyResult<()> {
        if !self.timed.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What is dropped here is dropped without a guard.
        let mut dead = Vec::new();
        {
            let mut timers = self.timers.lock();
            timers.due(py, self.now(), &mut self.ready.lock(), &mut dead);
            self.timed.store(!timers.is_empty(), Ordering::Relaxed);
        }
        drop(dead);
        Ok(())
    }

    /// Runs what is ready now. What becomes ready meanwhile waits for the next turn. A turn that runs within a callback begins
    /// with the rest of this one.
    fn run_ready(&self, slf: &Bound<'_, Self>, spare: &mut Option<Py<Handle>>) -> PyResult<()> {
        let py = slf.py();
        let mut next = self.ready.lock().begin(spare.take());
        while let Some((ready, is_last)) = next {
            let begun = self.begun();
            let outcome = match ready {
                Ready::Callback(Callback::Native(native)) => {
                    let outcome = self.run_native(slf, &native, begun, Handle::run);
                    *spare = Handle::recycle(&native, py).then_some(native);
                    outcome
                }
                Ready::Callback(Callback::Shared(shared)) => {
                    // SAFETY: what the variant says.
                    let handle = unsafe { shared.bind(py).cast_unchecked::<ThreadSafeHandle>() };
                    self.run_native(slf, &shared, begun, |_, _| ThreadSafeHandle::run(handle))
                }
                Ready::Callback(Callback::Debug(debug)) => self.run_debug(slf, &debug),
                Ready::Once(once) => {
                    let shown = begun.map(|_| once.object().clone_ref(py).into_bound(py));
                    once.call(py)
                        .and_then(|()| self.tell_if_slow(slf, begun, || shown))
                }
                Ready::Method(method) => match method.call(py) {
                    Ok(Some(Callback::Native(native) | Callback::Shared(native))) => {
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
            if is_last {
                break;
            }
            next = self.ready.lock().next(spare.take());
        }
        Ok(())
    }

    /// What this turn runs next, if that is a greenlet's wait: one that `may` end now, or one that a completion ends.
    #[inline]
    pub fn next_greenlet(&self, py: Python<'_>, may: impl FnOnce(&Once) -> bool) -> PyResult<Option<Once>> {
        {
            let mut ready = self.ready.lock();
            if !ready.is_empty() {
                return Ok(ready.next_greenlet(may));
            }
        }
        loop {
            if self.is_forked() {
                // The completions belong to the parent process.
                return Ok(None);
            }
            let Some((target, completion)) = self.io.get()?.pop_end(py) else {
                return Ok(None);
            };
            if let Some(end) = target.end(py, &completion)? {
                return Ok(Some(end));
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
        Scheduler::show(slf)?;
        // The handle drops its callback when it has run, so its description is made before.
        let shown = begun.and_then(|_| native.bind(py).repr().ok());
        match run(native.get(), py) {
            Ok(()) => self.tell_if_slow(slf, begun, || shown.map(Bound::into_any)),
            Err(failure) => self.callback_failed(slf, native, failure),
        }
    }

    fn run_debug(&self, slf: &Bound<'_, Self>, handle: &Py<PyAny>) -> PyResult<()> {
        Scheduler::show(slf)?;
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

    /// Which run of the loop this is.
    #[inline]
    pub fn run_number(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Runs turns of the loop until it is stopped, or a `single` turn.
    pub fn run(slf: &Bound<'_, Self>, single: bool) -> PyResult<()> {
        slf.get().runs.fetch_add(1, Ordering::Relaxed);
        let outcome = Scheduler::run_turns(slf, single);
        slf.get().runs.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn run_turns(slf: &Bound<'_, Self>, single: bool) -> PyResult<()> {
        let this = slf.get();
        let _claim = if this.is_forked() {
            None
        } else {
            Some(this.io.run()?)
        };
        let mut spare = None;
        loop {
            let outcome = this.turn(slf, &mut spare);
            if single || outcome.is_err() || this.stopping.load(Ordering::Relaxed) {
                let outcome = one_after_other(slf.py(), outcome, Scheduler::show(slf));
                if this.is_forked() {
                    return outcome;
                }
                return one_after_other(slf.py(), outcome, this.rest());
            }
        }
    }

    /// Drops the futures that are kept for waits, and with them their references to the loop.
    pub(super) fn forget_futures(&self) {
        let futures = std::mem::take(&mut *self.futures.lock());
        drop(futures);
    }

    /// Called when the loop stands still.
    pub fn rest(&self) -> PyResult<()> {
        self.forget_futures();
        let mut io = self.io.get()?;
        // Submit what was queued last (a cancellation, a close) before the loop stands still.
        let handed_over = io.driver.flush().map_err(engine_error);
        // Another thread may run the loop next.
        io.driver.unbind();
        handed_over
    }
}
