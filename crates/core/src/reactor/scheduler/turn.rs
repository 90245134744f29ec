//! One turn of the loop: let the engine wait (its only system call, and the only place that
//! releases the GIL), dispatch every completion, move due timers to the ready queue, run what is ready. Exceptions of
//! callbacks go to the loop's exception handler; `SystemExit` and `KeyboardInterrupt` end the run with everything left
//! in its place.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::prelude::*;

use super::{Scheduler, engine_error, forked};
use crate::asyncio::transport::datagram::DatagramTransport;
use crate::asyncio::transport::listener::Listener;
use crate::asyncio::transport::pipe::PipeTransport;
use crate::asyncio::transport::stream::StreamTransport;
use crate::py::call::{exception, one_after_other, stops_the_loop};
use crate::py::make::{Float, Text, name};
use crate::reactor::clock::now;
use crate::reactor::handle::{Failure, Handle};
use crate::reactor::io::Arrived;
use crate::reactor::ready::Ready;
use crate::reactor::slots::Target;

/// With callbacks ready, an engine that can only be asked by a system call is asked at least this often (ns).
const POLL_INTERVAL: u64 = 20_000;

/// What a run works through, kept from turn to turn for its memory.
#[derive(Default)]
struct Turn {
    running: VecDeque<Ready>,
    /// Handles that have run and that nobody holds any more, and how many of them are wanted.
    spare: Vec<Py<Handle>>,
    room: usize,
    due: Vec<Ready>,
    dead: Vec<Ready>,
    last_poll: u64,
}

impl Scheduler {
    /// When something begins that may call the program, in debug mode.
    fn begun(&self) -> Option<u64> {
        self.is_debug().then(now)
    }

    /// Tells of what has kept the loop for too long, in debug mode. asyncio's own handles are timed by `_run_debug`.
    fn tell_if_slow<'py>(
        &self,
        slf: &Bound<'py, Self>,
        begun: Option<u64>,
        what: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let Some(begun) = begun else { return Ok(()) };
        let took = now().saturating_sub(begun) as f64 / 1e9;
        let limit: f64 = slf.getattr(name!("slow_callback_duration"))?.extract()?;
        match what() {
            Some(what) if took >= limit => slf.call_method1(name!("_slow"), (what, Float(took))).map(drop),
            _ => Ok(()),
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
            let Arrived {
                completion,
                target,
                data,
            } = arrived;
            let begun = self.begun();
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
            self.tell_if_slow(slf, begun, || target.owner(py))?;
        }
    }

    /// How long the engine may wait: `None` without end.
    fn timeout(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<Option<Duration>> {
        if self.stopping.load(Ordering::Relaxed) || !self.ready.lock().is_empty() {
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

    /// Lets the engine submit, wait and collect. False: there is nothing to submit or to dispatch.
    fn wait(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<bool> {
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
        let timeout = self.timeout(py, turn)?;
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
        if self.orphaned.load(Ordering::Relaxed) {
            self.adopt(&mut *self.io.get()?);
        }
        if self.wait(py, turn)? {
            self.dispatch(slf)?;
        }
        self.move_due_timers(py, turn)?;
        self.run_ready(slf, turn)
    }

    fn move_due_timers(&self, py: Python<'_>, turn: &mut Turn) -> PyResult<()> {
        if !self.timed.load(Ordering::Relaxed) {
            return Ok(());
        }
        {
            let mut timers = self.timers.get()?;
            timers.due(py, now(), &mut turn.due, &mut turn.dead);
            self.timed.store(!timers.is_empty(), Ordering::Relaxed);
        }
        if !turn.due.is_empty() {
            self.ready.lock().extend(turn.due.drain(..));
        }
        turn.dead.clear();
        Ok(())
    }

    /// Runs what is ready now; what becomes ready meanwhile waits for the next turn.
    fn run_ready(&self, slf: &Bound<'_, Self>, turn: &mut Turn) -> PyResult<()> {
        let py = slf.py();
        turn.room = self.ready.lock().begin(&mut turn.running, &mut turn.spare);
        while let Some(handle) = turn.running.pop_front() {
            let begun = self.begun();
            let outcome = match handle {
                Ready::Native(native) => {
                    let outcome = self.run_native(slf, &native, begun, Handle::run);
                    if turn.spare.len() < turn.room && Handle::recycle(&native, py) {
                        turn.spare.push(native);
                    }
                    outcome
                }
                Ready::Debug(debug) => self.run_debug(slf, &debug),
                Ready::Watch(watch) => match watch.get().current(py)? {
                    Some(Ready::Native(native)) => self.run_native(slf, &native, begun, Handle::run_again),
                    Some(Ready::Debug(debug)) => self.run_debug(slf, &debug),
                    _ => Ok(()),
                },
                Ready::Datagrams(transport) => {
                    let transport = transport.bind(py);
                    DatagramTransport::take(transport)
                        .and_then(|()| self.tell_if_slow(slf, begun, || Some(transport.as_any().clone())))
                }
            };
            if outcome.is_err() {
                self.ready.lock().put_back(&mut turn.running);
                return outcome;
            }
        }
        Ok(())
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
        slf.call_method1(name!("_run_debug"), (handle,)).map(drop)
    }

    fn callback_failed(&self, slf: &Bound<'_, Self>, handle: &Py<Handle>, failure: Failure) -> PyResult<()> {
        let py = slf.py();
        let Failure { error, shown } = failure;
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        slf.call_method1(
            name!("_callback_failed"),
            (Text(shown), exception(py, &error), handle),
        )
        .map(drop)
    }
}

#[pymethods]
impl Scheduler {
    /// Turns of the loop until it is stopped; a single one for who calls this outside of a run.
    #[pyo3(name = "_run_once")]
    fn run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_open()?;
        let single = slf.getattr(name!("_thread_id"))?.is_none();
        let mut turn = Turn::default();
        loop {
            let outcome = slf.get().turn(slf, &mut turn);
            if single || outcome.is_err() || slf.get().stopping.load(Ordering::Relaxed) {
                if slf.get().is_forked() {
                    return outcome;
                }
                let mut io = slf.get().io.get()?;
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
