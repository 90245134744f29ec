//! Greenlets that wait: how they leave the thread to the loop, and how they come back.
//!
//! The loop runs in the greenlet that called `run_forever`, the hub of the thread. A *spawned* greenlet is switched to by an
//! entry of the ready queue, and switches back to the hub when it waits. A *bridge* runs within a step of a task
//! (`green.run`): when it waits, the future that it waits for is yielded by the task. In both, its parent is the greenlet
//! that it goes back to.
//!
//! A [`Parking`] is one wait of one greenlet.
//!
//! ```text
//! Armed ──wake──▶ Woken ──the turn──▶ Over
//!   └──an exception──┴───────────────▶ Over
//! ```
//!
//! An entry of the ready queue that comes too late finds `Over`, and does nothing: it never wakes a later wait.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::py::call::{method0, method1};
use crate::py::cell::SharedCell;
use crate::py::make::{Float, Text, name, py_error, tuple};
use crate::py::method::Once;
use crate::py::unique::is_unique;
use crate::reactor::hub::{Hub, green};
use crate::reactor::ready::{Queue, Ready};
use crate::reactor::scheduler::Scheduler;

enum Who {
    Greenlet(Py<PyAny>),
    /// A job that has no greenlet yet.
    Job(Py<PyAny>),
    /// A bridge, whose task waits for a future.
    Task {
        future: Py<PyAny>,
        bridge: Py<PyAny>,
    },
}

enum State {
    Armed(Who),
    Woken(Who),
    Over,
}

/// One wait of one greenlet.
#[pyclass(frozen, module = "proact._core")]
pub struct Parking {
    hub: Py<Hub>,
    state: SharedCell<State>,
}

impl Parking {
    /// A wait of the greenlet that runs now.
    ///
    /// # Errors
    /// What `refuse` raises outside of a green greenlet.
    pub fn here<'py>(py: Python<'py>) -> PyResult<Bound<'py, Parking>> {
        let (who, hub) = Parking::who(py)?;
        Parking::create(who, hub)
    }

    /// The wait of a job for its first turn.
    pub(super) fn of_job<'py>(hub: &Bound<'py, Hub>, job: Py<PyAny>) -> PyResult<Bound<'py, Parking>> {
        Parking::create(Who::Job(job), hub.clone())
    }

    fn create<'py>(who: Who, hub: Bound<'py, Hub>) -> PyResult<Bound<'py, Parking>> {
        let py = hub.py();
        let parking = Parking {
            hub: hub.unbind(),
            state: SharedCell::new(State::Armed(who)),
        };
        Bound::new(py, parking)
    }

    /// Who waits if the greenlet that runs now does.
    fn who(py: Python<'_>) -> PyResult<(Who, Bound<'_, Hub>)> {
        let (current, hub, is_spawned) = Hub::here(py)?;
        let scheduler = hub.get().scheduler.bind(py);
        scheduler.get().check_open()?;
        let who = if is_spawned {
            Who::Greenlet(current.unbind())
        } else {
            let future = (scheduler.get().hooks()?.future)(scheduler)?.unbind();
            let bridge = current.unbind();
            Who::Task { future, bridge }
        };
        Ok((who, hub))
    }

    /// As [`Parking::here`], for native code that knows the hub, and calls [`Parking::give_back`] after the wait.
    ///
    /// # Errors
    /// As [`Parking::here`].
    #[inline]
    pub fn lend<'py>(hub: &Bound<'py, Hub>) -> PyResult<Bound<'py, Parking>> {
        let who = Parking::who_within(hub)?;
        Parking::lend_to(who, hub.clone())
    }

    /// Who waits if the greenlet that runs now does, in most cases the spawned one that the hub knows.
    #[inline]
    fn who_within(hub: &Bound<'_, Hub>) -> PyResult<Who> {
        let py = hub.py();
        let current = green(py)?.api.current(py)?;
        if hub.get().runs(&current) {
            return Ok(Who::Greenlet(current.unbind()));
        }
        Parking::who(py).map(|(who, _)| who)
    }

    fn lend_to<'py>(who: Who, hub: Bound<'py, Hub>) -> PyResult<Bound<'py, Parking>> {
        let py = hub.py();
        let spare = hub.get().spare.lock().take();
        match spare.map(|spare| spare.into_bound(py)) {
            // SAFETY: a live object, and the reference is ours.
            Some(spare) if unsafe { is_unique(spare.as_ptr()) } => {
                drop(spare.get().turn_to(State::Armed(who)));
                Ok(spare)
            }
            _ => Parking::create(who, hub),
        }
    }

    /// The wait is over, or was interrupted: then something may still refer to it.
    pub fn give_back(slf: Bound<'_, Self>) {
        let hub = slf.get().hub.clone_ref(slf.py());
        let old = hub.get().spare.lock().replace(slf.unbind());
        drop(old);
    }

    /// Waits once more, after a wait that has ended: the greenlet that runs now.
    ///
    /// # Errors
    /// As [`Parking::here`].
    pub fn again(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let who = Parking::who_within(this.hub.bind(slf.py()))?;
        drop(this.turn_to(State::Armed(who)));
        Ok(())
    }

    /// What ends the wait, for a completion.
    pub fn end(slf: Bound<'_, Self>) -> Once {
        Once::new(slf.into_any().unbind(), |parking| {
            // SAFETY: the object beside this function.
            Parking::resume(unsafe { parking.cast_into_unchecked() })
        })
    }

    /// Ends the wait: within this completion, if nothing that was scheduled before waits in the queue.
    pub fn resume_before(slf: Bound<'_, Self>, queue: &Queue) -> PyResult<()> {
        let is_first = queue.lock().is_empty();
        if is_first && !slf.get().hub.get().scheduler.get().is_debug() {
            Parking::resume(slf)
        } else {
            Parking::wake(&slf)
        }
    }

    /// The greenlet that waits in it.
    pub fn greenlet(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*self.state.lock() {
            State::Armed(who) | State::Woken(who) => match who {
                Who::Greenlet(greenlet) | Who::Task { bridge: greenlet, .. } => Some(greenlet.clone_ref(py)),
                Who::Job(_) => None,
            },
            State::Over => None,
        }
    }

    fn turn_to(&self, state: State) -> State {
        std::mem::replace(&mut *self.state.lock(), state)
    }

    /// The spawned greenlet that waits, whose wait is over with this.
    #[inline]
    fn take_greenlet(&self) -> Option<Py<PyAny>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Armed(Who::Greenlet(greenlet)) | State::Woken(Who::Greenlet(greenlet)) => Some(greenlet),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Whether it was woken already, or no longer waits.
    pub fn is_woken(&self) -> bool {
        !matches!(&*self.state.lock(), State::Armed(_))
    }

    /// The future, for a bridge.
    fn future(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*self.state.lock() {
            State::Armed(Who::Task { future, .. }) | State::Woken(Who::Task { future, .. }) => {
                Some(future.clone_ref(py))
            }
            _ => None,
        }
    }

    /// Leaves the thread to the parent until the wait is over.
    ///
    /// # Errors
    /// What is raised in the greenlet while it waits. Then no wake-up comes any more.
    pub fn wait(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let api = &green(py)?.api;
        if matches!(&*this.state.lock(), State::Over) {
            return Ok(());
        }
        let future = this.future(py);
        let yields = match &future {
            Some(future) => Some(tuple(py, &[future.bind(py).clone()])?),
            None => None,
        };
        loop {
            let home = match &future {
                Some(_) => None,
                None => this.hub.get().home(py),
            };
            let outcome = match &home {
                Some(home) => Parking::leave_to_next(this.hub.bind(py), home),
                None => {
                    let Some(parent) = api.parent(&api.current(py)?) else {
                        return Err(py_error::<PyRuntimeError>("the loop's own greenlet cannot wait"));
                    };
                    api.switch(&parent, yields.as_ref())
                }
            };
            if let Err(error) = outcome {
                drop(this.turn_to(State::Over));
                return Err(error);
            }
            // Something else may have switched to a spawned greenlet. It goes on waiting. A bridge is switched to by the step of
            // its task alone, which comes when the future is done.
            if future.is_some() {
                drop(this.turn_to(State::Over));
            }
            if matches!(&*this.state.lock(), State::Over) {
                return Ok(());
            }
        }
    }

    /// Leaves the thread to the greenlet that the loop would switch to next, if the turn goes on with one, or else to the loop.
    #[inline]
    fn leave_to_next<'py>(hub: &Bound<'py, Hub>, home: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = hub.py();
        let scheduler = hub.get().scheduler.get();
        let may_be = |once: &Once| {
            let parking = once.object().bind(py).cast::<Parking>();
            parking
                .is_ok_and(|parking| matches!(&*parking.get().state.lock(), State::Woken(Who::Greenlet(_))))
        };
        if !scheduler.is_debug()
            && let Some(next) = scheduler.next_greenlet(py, may_be)?
        {
            let parking = next.object().bind(py).cast::<Parking>();
            if let Some(greenlet) = parking.ok().and_then(|parking| parking.get().take_greenlet()) {
                // The wait that is over may be the next one's, too: nothing else refers to it then.
                drop(next);
                return Hub::go_on(hub, home, greenlet.into_bound(py));
            }
            // A bridge: its task is woken, and goes on within a step of its own.
            next.call(py)?;
        }
        green(py)?.api.switch(home, None)
    }

    /// Ends the wait, by an entry of the ready queue. Any thread may call it; a second call has no effect.
    pub fn wake(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.hub.get().scheduler.bind(py);
        let future = {
            let mut state = this.state.lock();
            match std::mem::replace(&mut *state, State::Over) {
                State::Armed(who) => {
                    let future = match &who {
                        Who::Task { future, .. } => Some(future.clone_ref(py)),
                        Who::Greenlet(_) | Who::Job(_) => None,
                    };
                    *state = State::Woken(who);
                    future
                }
                other => {
                    *state = other;
                    return Ok(());
                }
            }
        };
        // A loop that nobody runs may begin to run in another thread at this moment, and sleep: it is woken, too.
        let elsewhere = !scheduler.get().io.is_mine();
        match future {
            None => {
                scheduler.get().push(Ready::Once(Parking::end(slf.clone())));
                if elsewhere {
                    scheduler.get().wake();
                }
                Ok(())
            }
            Some(future) if elsewhere => {
                let set = slf.getattr(name!("settle"))?;
                let args = tuple(py, &[future.into_bound(py)])?;
                Scheduler::call_soon(scheduler, set, args, None, true).map(drop)
            }
            Some(future) => set(future.bind(py)),
        }
    }

    /// Ends the wait now. Only the hub calls this. The caller's reference is gone before the greenlet runs, which may wait in the
    /// same object again.
    fn resume(slf: Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let hub = slf.get().hub.bind(py).clone();
        match slf.get().turn_to(State::Over) {
            State::Armed(Who::Greenlet(greenlet)) | State::Woken(Who::Greenlet(greenlet)) => {
                drop(slf);
                Hub::enter(&hub, greenlet.bind(py), None)
            }
            State::Armed(Who::Job(job)) | State::Woken(Who::Job(job)) => Hub::begin(&hub, job.bind(py)),
            State::Armed(task @ Who::Task { .. }) | State::Woken(task @ Who::Task { .. }) => {
                let done = match &task {
                    Who::Task { future, .. } => set(future.bind(py)),
                    _ => Ok(()),
                };
                drop(slf.get().turn_to(State::Woken(task)));
                done
            }
            State::Over => Ok(()),
        }
    }
}

/// Ends the wait of a task, unless the task was cancelled in this turn.
fn set(future: &Bound<'_, PyAny>) -> PyResult<()> {
    if method0(future, name!("done"))?.is_truthy()? {
        return Ok(());
    }
    let none = future.py().None();
    method1(future, name!("set_result"), none.bind(future.py())).map(drop)
}

#[pymethods]
impl Parking {
    #[new]
    fn new<'py>(py: Python<'py>) -> PyResult<Py<Parking>> {
        Parking::here(py).map(Bound::unbind)
    }

    #[pyo3(name = "wait")]
    fn py_wait(slf: &Bound<'_, Self>) -> PyResult<()> {
        Parking::wait(slf)
    }

    #[pyo3(name = "wake")]
    fn py_wake(slf: &Bound<'_, Self>) -> PyResult<()> {
        Parking::wake(slf)
    }

    /// Ends the wait within this callback of the loop. Whatever a caller passes is ignored.
    #[pyo3(signature = (*args))]
    fn fire(slf: &Bound<'_, Self>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let _ = args;
        Parking::resume(slf.clone())
    }

    #[staticmethod]
    fn settle(future: &Bound<'_, PyAny>) -> PyResult<()> {
        set(future)
    }

    /// Prevents the wake-up. Whether there would have been one.
    fn stop(&self) -> bool {
        !matches!(self.turn_to(State::Over), State::Over)
    }

    /// Whether it was woken already, or no longer waits.
    #[getter]
    fn woken(&self) -> bool {
        self.is_woken()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.hub)?;
        match self.state.look().as_deref() {
            Some(State::Armed(who) | State::Woken(who)) => match who {
                Who::Greenlet(object) | Who::Job(object) => visit.call(object),
                Who::Task { future, bridge } => {
                    visit.call(future)?;
                    visit.call(bridge)
                }
            },
            _ => Ok(()),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let greenlet = match &*self.state.lock() {
            State::Armed(Who::Greenlet(who) | Who::Job(who))
            | State::Woken(Who::Greenlet(who) | Who::Job(who)) => Some(who.clone_ref(py)),
            _ => None,
        };
        let shown = match greenlet {
            Some(greenlet) => greenlet.bind(py).repr()?.to_string(),
            None => String::from("over"),
        };
        Ok(Text(format!("<Parking {shown}>")))
    }
}

/// Lets others run, for `seconds`; 0: until everything that is ready now has run.
#[pyfunction]
#[pyo3(signature = (seconds = 0.0))]
pub fn green_sleep(py: Python<'_>, seconds: f64) -> PyResult<()> {
    if seconds <= 0.0 {
        let (who, hub) = Parking::who(py)?;
        if matches!(who, Who::Greenlet(_)) && hub.get().scheduler.get().has_nothing_to_do(py)? {
            hub.get().count_switch();
            return Ok(());
        }
        let parking = Parking::lend_to(who, hub)?;
        Parking::wake(&parking)?;
        let outcome = Parking::wait(&parking);
        Parking::give_back(parking);
        return outcome;
    }
    let parking = Parking::here(py)?;
    let scheduler = parking.get().hub.get().scheduler.bind(py);
    let fire = parking.getattr(name!("fire"))?;
    let timer = scheduler.call_method1(name!("call_later"), (Float(seconds), fire))?;
    let outcome = Parking::wait(&parking);
    if outcome.is_err() {
        timer.call_method0(name!("cancel"))?;
    }
    outcome
}
