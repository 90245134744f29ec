//! The fds that are watched. One side of an fd has one poll in the engine, however many watchers it has.
//!
//! gevent starts a watcher before each wait and stops it after, so starting and stopping only changes the list of the poll's
//! watchers. Before the loop waits, `settle` tells the engine what has changed over the whole turn: for a connection that is
//! read message by message that is nothing, and no system call is made.
//!
//! A poll of *edges* tells of what has come only once. It is enough for a greenlet that makes its call before it waits, and it
//! stays when the greenlet has stopped waiting, until it has told in vain too often.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proact_driver::{Op, Token, ops};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::hub_loop::GeventLoop;
use super::watcher::{GeventWatcher, READ, WRITE};
use crate::py::cell::SharedCell;
use crate::reactor::fds::Side;
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::{Completes, Target};

/// A poll of edges ends when it has told more often than this while nobody waited.
const UNHEARD: u32 = 64;

#[derive(Default)]
struct Held {
    /// The poll in flight.
    token: Option<Token>,
    /// The active watchers.
    watchers: Vec<Py<GeventWatcher>>,
    /// Whether the loop's list of changes has it.
    changed: bool,
    /// The number may name another file than when the poll was submitted.
    renew: bool,
    /// Whether the poll in flight, or the next one, is of edges.
    edges: bool,
    /// A poll of edges for which nobody waits: how often it has told since, and whether it is to end.
    unheard: u32,
    unwanted: bool,
}

impl Held {
    /// Whether the poll in flight stays.
    fn is_wanted(&self) -> bool {
        !self.watchers.is_empty() || (self.edges && !self.unwanted)
    }
}

/// One side of an fd.
#[pyclass(frozen, module = "proact._core")]
pub struct Poll {
    fd: RawFd,
    side: Side,
    /// How many polls of the loop are in flight.
    in_flight: Arc<AtomicUsize>,
    owner: Py<GeventLoop>,
    held: SharedCell<Held>,
}

static POLLS: Completes<Poll> = Completes::<Poll>::new(|poll, arrived| {
    let (completion, this) = (arrived.completion, poll.get());
    let mut held = this.held.lock();
    if held.token != Some(completion.token) {
        // Cancelled, and perhaps submitted again since.
        return Ok(());
    }
    if completion.is_terminal() {
        held.token = None;
        this.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
    if completion.result >= 0 && held.watchers.is_empty() {
        drop(held);
        Poll::told_in_vain(poll);
        return Ok(());
    }
    drop(held);
    if completion.result < 0 {
        this.fail(poll.py());
        return Ok(());
    }
    this.feed(poll.py());
    Ok(())
});

#[pymethods]
impl Poll {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        match self.held.look() {
            Some(held) => held.watchers.iter().try_for_each(|watcher| visit.call(watcher)),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let watchers = std::mem::take(&mut self.held.lock().watchers);
        drop(watchers);
    }
}

impl Poll {
    pub fn create(
        owner: &Bound<'_, GeventLoop>,
        fd: RawFd,
        side: Side,
        in_flight: Arc<AtomicUsize>,
    ) -> PyResult<Py<Poll>> {
        let held = SharedCell::new(Held::default());
        let poll = Poll {
            fd,
            side,
            in_flight,
            owner: owner.clone().unbind(),
            held,
        };
        Py::new(owner.py(), poll)
    }

    fn event(&self) -> u32 {
        match self.side {
            Side::Read => READ,
            Side::Write => WRITE,
        }
    }

    /// Adds an active watcher. `fresh`: it was never started before. `edges`: whoever waits has made the call already, so that
    /// nothing is there.
    pub fn add(
        slf: &Bound<'_, Self>,
        owner: &GeventLoop,
        watcher: Py<GeventWatcher>,
        fresh: bool,
        edges: bool,
    ) {
        let mut held = slf.get().held.lock();
        if !edges {
            // What has come already may not be told of again.
            held.renew |= std::mem::replace(&mut held.edges, false);
        } else if held.watchers.is_empty() && (held.token.is_none() || fresh) {
            held.edges = true;
        }
        held.unwanted = false;
        held.unheard = 0;
        held.watchers.push(watcher);
        held.renew |= fresh;
        let is_new = (held.token.is_none() || held.renew) && !std::mem::replace(&mut held.changed, true);
        drop(held);
        if is_new {
            owner.held.lock().changed.push(slf.clone().unbind());
        }
    }

    /// Takes a watcher out, of which the caller has a reference.
    pub fn remove(slf: &Bound<'_, Self>, owner: &GeventLoop, watcher: &Bound<'_, GeventWatcher>) {
        let mut held = slf.get().held.lock();
        let Some(index) = held.watchers.iter().position(|other| other.is(watcher)) else {
            return;
        };
        let removed = held.watchers.remove(index);
        let is_new = !held.is_wanted() && !std::mem::replace(&mut held.changed, true);
        drop(held);
        drop(removed);
        if is_new {
            owner.held.lock().changed.push(slf.clone().unbind());
        }
    }

    /// The active watchers.
    pub fn watchers(&self, py: Python<'_>) -> Vec<Py<GeventWatcher>> {
        let held = self.held.lock();
        held.watchers
            .iter()
            .map(|watcher| watcher.clone_ref(py))
            .collect()
    }

    /// Tells the watchers that the fd is ready.
    fn feed(&self, py: Python<'_>) {
        let only = match self.held.lock().watchers.as_slice() {
            [only] => Some(only.clone_ref(py)),
            _ => None,
        };
        match only {
            Some(only) => GeventWatcher::feed(only.bind(py), self.event()),
            None => {
                for watcher in self.watchers(py) {
                    GeventWatcher::feed(watcher.bind(py), self.event());
                }
            }
        }
    }

    /// The poll has told, and nobody waits for it.
    #[cold]
    fn told_in_vain(slf: &Bound<'_, Self>) {
        let this = slf.get();
        let owner = this.owner.get();
        let limit = match owner.scheduler(slf.py()) {
            Ok(scheduler) => match scheduler.get().io.get() {
                Ok(io) if io.driver.tells_edges() => UNHEARD,
                _ => 0,
            },
            Err(_) => return,
        };
        {
            let mut held = this.held.lock();
            held.unheard += 1;
            if held.unheard <= limit {
                return;
            }
        }
        Poll::abandon(slf);
    }

    /// Has the engine end a poll for which nobody waits, before the loop waits next.
    pub fn abandon(slf: &Bound<'_, Self>) {
        let mut held = slf.get().held.lock();
        held.unwanted = true;
        let is_new = held.token.is_some() && !held.is_wanted() && !std::mem::replace(&mut held.changed, true);
        drop(held);
        if is_new {
            slf.get()
                .owner
                .get()
                .held
                .lock()
                .changed
                .push(slf.clone().unbind());
        }
    }

    /// Ends all watchers of an fd that can't be polled, and tells them that it is ready: the call that they make next finds the
    /// error.
    fn fail(&self, py: Python<'_>) {
        for watcher in self.watchers(py) {
            let watcher = watcher.bind(py);
            GeventWatcher::deactivate(watcher);
            GeventWatcher::feed(watcher, self.event());
        }
    }

    /// The fd is about to be closed: makes the kernel let go of its file, unless watchers are active.
    pub fn let_go(slf: &Bound<'_, Self>, scheduler: &Scheduler) {
        let this = slf.get();
        let Ok(mut io) = scheduler.io.get() else { return };
        let token = {
            let mut held = this.held.lock();
            if !held.watchers.is_empty() {
                return;
            }
            held.token.take()
        };
        let Some(token) = token else { return };
        this.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !io.cancel(token) {
            // Until the kernel has the cancellation, the poll keeps the file open, and its peer does not see the close. An
            // error shows with the next wait.
            let _ = io.driver.flush();
        }
    }

    /// Notes that the engine is another one, which has no polls.
    pub fn lose(&self) {
        let mut held = self.held.lock();
        if held.token.take().is_some() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        held.changed = true;
    }

    /// Tells the engine which polls have changed.
    pub fn settle(py: Python<'_>, owner: &GeventLoop, scheduler: &Scheduler) -> PyResult<()> {
        let changed = std::mem::take(&mut owner.held.lock().changed);
        if changed.is_empty() {
            return Ok(());
        }
        let mut refused = Vec::new();
        {
            let mut io = scheduler.io.get()?;
            for poll in &changed {
                let mut held = poll.get().held.lock();
                held.changed = false;
                let wanted = held.is_wanted();
                let renew = std::mem::replace(&mut held.renew, false);
                if let Some(token) = held.token
                    && (renew || !wanted)
                {
                    io.cancel(token);
                    held.token = None;
                    poll.get().in_flight.fetch_sub(1, Ordering::Relaxed);
                }
                if !held.watchers.is_empty() && held.token.is_none() {
                    let edges = if held.edges { ops::EDGES } else { 0 };
                    let op = ops::PollMulti {
                        fd: poll.get().fd,
                        events: poll.get().side.events() | edges,
                    };
                    // SAFETY: a poll points at no memory.
                    match unsafe { io.submit(Op::PollMulti(op), Target::new(poll.clone_ref(py), &POLLS)) } {
                        Sent::Pending(token) => {
                            held.token = Some(token);
                            poll.get().in_flight.fetch_add(1, Ordering::Relaxed);
                        }
                        Sent::Ready(error) => refused.push((poll.clone_ref(py), error)),
                    }
                }
            }
        }
        for (poll, error) in refused {
            if error == -libc::EPERM {
                // A regular file, for which epoll can't wait: it is always ready.
                let mut held = poll.get().held.lock();
                held.changed = true;
                drop(held);
                for watcher in poll.get().watchers(py) {
                    GeventWatcher::feed(watcher.bind(py), poll.get().event());
                }
                owner.held.lock().changed.push(poll);
            } else {
                poll.get().fail(py);
            }
        }
        Ok(())
    }
}
