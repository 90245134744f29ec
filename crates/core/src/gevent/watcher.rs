//! A watcher: a callback that the loop calls whenever an event comes, until the watcher is stopped.
//!
//! ```text
//!             start                      feed                    invoke
//!   stopped ─────────▶ active ────────────────▶ active, pending ────────▶ active
//!      ▲                 │ a timer without repeat:                           │
//!      │                 └──── feed ────▶ pending ── invoke ──▶ stopped      │
//!      └────────────────────────────── stop ─────────────────────────────────┘
//! ```
//!
//! While it is active, the loop holds a reference: a program may start a watcher and forget it.

mod methods;

use std::os::fd::RawFd;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::hub_loop::GeventLoop;
use super::polls::Poll;
use super::waiting::Waiting;
use crate::py::call::call_tuple;
use crate::py::cell::SharedCell;
use crate::py::make::{Int, py_error, tuple};
use crate::reactor::fds::Side;

pub const READ: u32 = 1;
pub const WRITE: u32 = 2;
/// What a watcher other than of an fd is fed with.
pub const HAPPENED: u32 = 256;

/// The kinds that the loop feeds in every turn in which their moment comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Prepare,
    Check,
    Idle,
    Fork,
}

pub enum Kind {
    Io {
        fd: RawFd,
        events: u32,
        /// The events that were not waited for yet. The number may have named another file before, which a poll still watches.
        fresh: u32,
        polls: [Option<Py<Poll>>; 2],
        /// Ends a greenlet's wait, if that is limited (`hub_wait.rs`).
        limit: Option<Py<GeventWatcher>>,
        /// Whether the program uses the fd, too: no poll stays in flight for it that nobody waits for.
        lent: bool,
    },
    /// Times in nanoseconds of the engine's clock. `order`: the number of its entry in the heap.
    Timer {
        after: u64,
        repeat: u64,
        at: u64,
        order: u64,
    },
    Moment(Moment),
    /// Fed by Python, or by `send` of an async watcher.
    Fed(&'static str),
}

pub struct Held {
    pub callback: Option<Py<PyAny>>,
    pub args: Option<Py<PyTuple>>,
    /// In place of a callback: a greenlet that waits, which the loop switches to.
    pub waiting: Option<Waiting>,
    /// Whether the loop has switched to the greenlet.
    pub woken: bool,
    pub passes_events: bool,
    pub active: bool,
    /// The events that the callback was not called for yet; 0: none.
    pub pending: u32,
    /// Whether the loop goes on for this watcher's sake.
    pub counts: bool,
    pub priority: i8,
    pub kind: Kind,
}

impl Held {
    /// Whether something is to be called, or waits.
    pub fn is_used(&self) -> bool {
        self.active || self.callback.is_some() || self.waiting.is_some()
    }
}

impl Drop for GeventWatcher {
    /// A program may drop a socket without closing it. What is in flight for nobody would keep the file open.
    fn drop(&mut self) {
        // SAFETY: nobody else can reach the object any more.
        let held = unsafe { self.held.alone() };
        if let Kind::Io { polls, .. } = &mut held.kind {
            for poll in std::mem::take(polls).into_iter().flatten() {
                // SAFETY: Python drops its objects, with the thread attached.
                Poll::abandon(poll.bind(unsafe { Python::assume_attached() }));
            }
        }
    }
}

/// The base of all watchers, as `gevent._interfaces.IWatcher`.
#[pyclass(frozen, subclass, weakref, module = "proact._core")]
pub struct GeventWatcher {
    pub owner: Py<GeventLoop>,
    pub held: SharedCell<Held>,
}

/// The priorities of libev.
pub const PRIORITIES: std::ops::RangeInclusive<i64> = -2..=2;

fn within(priority: Option<i64>) -> i8 {
    priority
        .unwrap_or(0)
        .clamp(*PRIORITIES.start(), *PRIORITIES.end()) as i8
}

impl GeventWatcher {
    /// # Errors
    /// `ValueError` for a loop that was destroyed.
    pub fn new(
        owner: &Bound<'_, GeventLoop>,
        kind: Kind,
        counts: bool,
        priority: Option<i64>,
    ) -> PyResult<GeventWatcher> {
        owner.get().check_open()?;
        Ok(GeventWatcher {
            owner: owner.clone().unbind(),
            held: SharedCell::new(Held {
                callback: None,
                args: None,
                waiting: None,
                woken: false,
                passes_events: false,
                active: false,
                pending: 0,
                counts,
                priority: within(priority),
                kind,
            }),
        })
    }

    /// Begins to watch. A watcher that is active already only gets the new callback.
    pub fn begin(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        passes_events: bool,
    ) -> PyResult<()> {
        if !callback.is_callable() {
            return Err(py_error::<PyTypeError>(format!(
                "Expected callable, not {}",
                callback.repr()?
            )));
        }
        let this = slf.get();
        this.owner.get().check_open()?;
        let mut held = this.held.lock();
        let old = (
            held.callback.replace(callback.unbind()),
            held.args.replace(args.unbind()),
            held.waiting.take(),
        );
        held.passes_events = passes_events;
        let was_active = std::mem::replace(&mut held.active, true);
        let counts = held.counts;
        drop(held);
        drop(old);
        if !was_active {
            if counts {
                this.owner.get().held.lock().references += 1;
            }
            GeventWatcher::activate(slf)?;
        }
        Ok(())
    }

    /// Has a greenlet wait in a watcher of an fd or a timer, in place of a callback. False: something uses the watcher already.
    /// `edges`: as [`Poll::add`].
    pub fn begin_wait(slf: &Bound<'_, Self>, waiting: Waiting, edges: bool) -> PyResult<bool> {
        let this = slf.get();
        this.owner.get().check_open()?;
        let mut held = this.held.lock();
        if held.is_used() {
            drop(held);
            return Ok(false);
        }
        held.waiting = Some(waiting);
        held.woken = false;
        held.active = true;
        let counts = held.counts;
        let io = match held.kind {
            Kind::Io { fd, events, lent, .. } => Some((fd, events, edges && !lent)),
            _ => None,
        };
        let after = match held.kind {
            Kind::Timer { after, .. } => after,
            _ => 0,
        };
        drop(held);
        if counts {
            this.owner.get().held.lock().references += 1;
        }
        if let Some((fd, events, edges)) = io {
            GeventWatcher::activate_io(slf, fd, events, edges)?;
        } else {
            let due = this.owner.get().read_clock(slf.py()).saturating_add(after);
            if let Kind::Timer { at, .. } = &mut this.held.lock().kind {
                *at = due;
            }
            GeventWatcher::enter_heap(slf, due);
        }
        Ok(true)
    }

    fn activate(slf: &Bound<'_, Self>) -> PyResult<()> {
        let owner = slf.get().owner.get();
        let held = slf.get().held.lock();
        match held.kind {
            Kind::Io { fd, events, .. } => {
                drop(held);
                return GeventWatcher::activate_io(slf, fd, events, false);
            }
            Kind::Timer { at, .. } => {
                drop(held);
                GeventWatcher::enter_heap(slf, at);
            }
            Kind::Moment(moment) => {
                drop(held);
                owner.held.lock().moments[moment as usize].push(slf.clone().unbind());
            }
            Kind::Fed(_) => {
                drop(held);
                owner.held.lock().kept.push(slf.clone().unbind());
            }
        }
        Ok(())
    }

    fn enter_heap(slf: &Bound<'_, Self>, at: u64) {
        let mut owner = slf.get().owner.get().held.lock();
        let entry = owner.timers.push(at, slf.clone().unbind());
        drop(owner);
        if let Kind::Timer { order, .. } = &mut slf.get().held.lock().kind {
            *order = entry;
        }
    }

    fn activate_io(slf: &Bound<'_, Self>, fd: RawFd, wanted: u32, edges: bool) -> PyResult<()> {
        let py = slf.py();
        let owner = slf.get().owner.get();
        for (side, event) in [(Side::Read, READ), (Side::Write, WRITE)] {
            if wanted & event == 0 {
                continue;
            }
            let (mut poll, is_fresh) = match &slf.get().held.lock().kind {
                Kind::Io { polls, fresh, .. } => (
                    polls[side as usize].as_ref().map(|poll| poll.clone_ref(py)),
                    *fresh & event != 0,
                ),
                _ => return Ok(()),
            };
            if poll.is_none() {
                // No cell is held: a new object may start the collector.
                poll = Some(GeventLoop::poll_of(slf.get().owner.bind(py), fd, side)?);
            }
            if let Some(poll) = poll {
                Poll::add(poll.bind(py), owner, slf.clone().unbind(), is_fresh, edges);
                if let Kind::Io { polls, fresh, .. } = &mut slf.get().held.lock().kind {
                    *fresh &= !event;
                    polls[side as usize].get_or_insert(poll);
                }
            }
        }
        Ok(())
    }

    /// Stops watching. What is pending stays pending.
    pub fn deactivate(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        let owner = this.owner.get();
        let mut held = this.held.lock();
        if !std::mem::replace(&mut held.active, false) {
            return;
        }
        let counts = held.counts;
        // Dropped when no cell is held. It is not the last reference: the caller has one.
        let mut forgotten = None;
        match &mut held.kind {
            Kind::Io { polls, .. } => {
                let polls = polls
                    .each_ref()
                    .map(|poll| poll.as_ref().map(|poll| poll.clone_ref(py)));
                drop(held);
                for poll in polls.iter().flatten() {
                    Poll::remove(poll.bind(py), owner, slf);
                }
            }
            Kind::Timer { order, .. } => {
                *order = 0;
                drop(held);
                owner.held.lock().timers.spoil();
            }
            Kind::Moment(moment) => {
                let moment = *moment as usize;
                drop(held);
                forgotten = remove(&mut owner.held.lock().moments[moment], slf);
            }
            Kind::Fed(_) => {
                drop(held);
                forgotten = remove(&mut owner.held.lock().kept, slf);
            }
        }
        if counts {
            owner.held.lock().references -= 1;
        }
        drop(forgotten);
    }

    /// Stops watching, forgets what is pending, and lets go of the callback.
    pub fn end(slf: &Bound<'_, Self>) {
        GeventWatcher::deactivate(slf);
        let mut held = slf.get().held.lock();
        held.pending = 0;
        let old = (held.callback.take(), held.args.take(), held.waiting.take());
        drop(held);
        drop(old);
    }

    /// Notes that events have come. The loop calls the callback later in its turn.
    pub fn feed(slf: &Bound<'_, Self>, events: u32) {
        let this = slf.get();
        let mut held = this.held.lock();
        let is_new = held.pending == 0;
        held.pending |= events;
        let priority = held.priority;
        drop(held);
        if is_new {
            this.owner
                .get()
                .held
                .lock()
                .add_pending(priority, slf.clone().unbind());
        }
    }

    /// A timer's time has come.
    pub fn expire(slf: &Bound<'_, Self>, now: u64) {
        let mut held = slf.get().held.lock();
        let Kind::Timer {
            repeat, at, order, ..
        } = &mut held.kind
        else {
            return;
        };
        if *repeat > 0 {
            // Late by more than a period: the missed times are not made up for.
            *at = at.saturating_add(*repeat).max(now);
            let at = *at;
            drop(held);
            GeventWatcher::enter_heap(slf, at);
        } else {
            *order = 0;
            held.active = false;
            let counts = held.counts;
            drop(held);
            if counts {
                slf.get().owner.get().held.lock().references -= 1;
            }
        }
        GeventWatcher::feed(slf, HAPPENED);
    }

    /// Calls the callback for what is pending. Returns the error that it raised.
    pub fn invoke(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut held = this.held.lock();
        let events = std::mem::replace(&mut held.pending, 0);
        if events != 0
            && let Some(waiting) = held.waiting.take()
        {
            held.woken = true;
            drop(held);
            GeventWatcher::deactivate(slf);
            return waiting.end(py);
        }
        let Some(callback) = held.callback.as_ref().map(|callback| callback.clone_ref(py)) else {
            return Ok(());
        };
        if events == 0 {
            return Ok(());
        }
        let args = held.args.as_ref().map(|args| args.clone_ref(py));
        let passes_events = held.passes_events;
        drop(held);
        let outcome = match args {
            Some(args) if !passes_events => call_tuple(py, &callback, &args).map(drop),
            args => {
                let mut whole = Vec::new();
                if passes_events {
                    whole.push(Int::new(events).into_pyobject(py)?.into_any());
                }
                // An item of the tuple is borrowed from it, and `whole` has a reference of its own.
                whole.extend(args.iter().flat_map(|args| args.bind(py).iter()));
                callback.bind(py).call1(tuple(py, &whole)?).map(drop)
            }
        };
        // A watcher of an fd whose callback fails would be called again at once.
        let failed = outcome.is_err() && events & (READ | WRITE) != 0;
        let is_over = failed || !this.held.lock().active;
        if is_over && !failed && this.held.lock().pending != 0 {
            return outcome;
        }
        if is_over {
            GeventWatcher::end(slf);
        }
        outcome
    }

    fn is_timer_entry(&self, number: u64) -> bool {
        let held = self.held.lock();
        matches!(held.kind, Kind::Timer { order, .. } if order == number)
    }

    /// Whether an entry of the loop's heap is a timer's current one.
    pub fn counts_as(watcher: &Py<GeventWatcher>, number: u64) -> bool {
        watcher.get().is_timer_entry(number)
    }

    fn name(&self) -> &'static str {
        match self.held.lock().kind {
            Kind::Io { .. } => "io",
            Kind::Timer { .. } => "timer",
            Kind::Moment(Moment::Prepare) => "prepare",
            Kind::Moment(Moment::Check) => "check",
            Kind::Moment(Moment::Idle) => "idle",
            Kind::Moment(Moment::Fork) => "fork",
            Kind::Fed(name) => name,
        }
    }
}

/// Takes a watcher out of a list.
fn remove(
    watchers: &mut Vec<Py<GeventWatcher>>,
    watcher: &Bound<'_, GeventWatcher>,
) -> Option<Py<GeventWatcher>> {
    let index = watchers.iter().position(|other| other.is(watcher))?;
    Some(watchers.remove(index))
}
