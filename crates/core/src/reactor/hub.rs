//! The hub of a loop: what its greenlets share, and how the loop switches to one of them. `parking.rs` has the ways back.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::py::call::{method0, method1};
use crate::py::cell::SharedCell;
use crate::py::greenlet::Api;
use crate::py::make::{Float, name, py_error};
use crate::reactor::parking::Parking;
use crate::reactor::scheduler::Scheduler;

/// What `proact.green` tells the native side about itself.
pub(super) struct Green {
    pub(super) api: Api,
    spawned: Py<PyType>,
    bridge: Py<PyType>,
    /// Raises the error for a call outside of a green greenlet.
    refuse: Py<PyAny>,
    /// Makes a timer that raises TimeoutError in the greenlet that runs now.
    interrupt: Py<PyAny>,
}

static GREEN: PyOnceLock<Green> = PyOnceLock::new();

pub(super) fn green(py: Python<'_>) -> PyResult<&Green> {
    GREEN
        .get(py)
        .ok_or_else(|| py_error::<PyRuntimeError>("proact.green was not imported"))
}

/// Takes the classes of greenlets, what raises the error for calls outside of them, and what makes timers for calls.
#[pyfunction]
#[pyo3(signature = (spawned, bridge, refuse, interrupt, /))]
pub fn configure_green(
    py: Python<'_>,
    spawned: Py<PyType>,
    bridge: Py<PyType>,
    refuse: Py<PyAny>,
    interrupt: Py<PyAny>,
) -> PyResult<()> {
    let api = Api::load(py)?;
    let _ = GREEN.set(
        py,
        Green {
            api,
            spawned,
            bridge,
            refuse,
            interrupt,
        },
    );
    Ok(())
}

/// A timer that raises TimeoutError in the greenlet that runs now, unless it is cancelled within `seconds`.
pub fn interrupt_later(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
    green(py)?.interrupt.bind(py).call1((Float(seconds),))
}

/// What the greenlets of a loop share.
#[pyclass(frozen, subclass, weakref, module = "proact._core")]
pub struct Hub {
    pub(super) scheduler: Py<Scheduler>,
    /// The spawned greenlet that runs now: for the watchdog, which asks from another thread.
    running: SharedCell<Option<Py<PyAny>>>,
    switches: AtomicU64,
    /// Greenlets that have done their job and wait for the next one.
    idle: SharedCell<Vec<Py<PyAny>>>,
    /// The greenlet that runs the loop, and in which of its runs that was seen.
    home: SharedCell<Option<(u64, Py<PyAny>)>>,
    /// A wait that is over, for the next one.
    pub(super) spare: SharedCell<Option<Py<Parking>>>,
}

/// At most this many greenlets are kept for other jobs. Each keeps the memory of its Python frames, 16 KiB: to give that back
/// and to ask for it again costs 8 µs on Python 3.11, more than all else that a spawned greenlet does.
const IDLE: usize = 256;

impl Hub {
    /// The green greenlet that runs now, its hub, and whether it is a spawned one.
    ///
    /// # Errors
    /// What `refuse` raises outside of a green greenlet.
    pub(super) fn here<'py>(py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, Hub>, bool)> {
        let green = green(py)?;
        let current = green.api.current(py)?;
        let kind = current.get_type();
        let is_spawned = kind.is(&green.spawned);
        if !is_spawned && !kind.is(&green.bridge) {
            green.refuse.bind(py).call0()?;
        }
        let hub = current.getattr(name!("hub"))?.cast_into::<Hub>()?;
        Ok((current, hub, is_spawned))
    }

    /// The loop of the green greenlet that runs now.
    ///
    /// # Errors
    /// As [`Hub::here`].
    pub fn scheduler_here<'py>(py: Python<'py>) -> PyResult<Bound<'py, Scheduler>> {
        let (_, hub, _) = Hub::here(py)?;
        Ok(hub.get().scheduler.bind(py).clone())
    }

    /// The hub of the green greenlet that runs now.
    ///
    /// # Errors
    /// As [`Hub::here`].
    pub fn of_this_greenlet(py: Python<'_>) -> PyResult<Bound<'_, Hub>> {
        Hub::here(py).map(|(_, hub, _)| hub)
    }

    /// Whether the caller runs within a spawned greenlet of this hub, or within what that one calls.
    #[inline]
    pub fn is_within(&self) -> bool {
        self.running.lock().is_some() && !self.scheduler.get().io.runs_elsewhere()
    }

    /// Whether this greenlet is the spawned one that the loop has switched to last.
    #[inline]
    pub(super) fn runs(&self, greenlet: &Bound<'_, PyAny>) -> bool {
        let running = self.running.lock();
        running.as_ref().is_some_and(|running| running.is(greenlet))
    }

    #[inline]
    pub fn scheduler<'py>(&self, py: Python<'py>) -> &Bound<'py, Scheduler> {
        self.scheduler.bind(py)
    }

    /// The greenlet that runs the loop, if this run of it has switched to a greenlet before.
    #[inline]
    pub(super) fn home<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let run = self.scheduler.get().run_number();
        match &*self.home.lock() {
            Some((seen, home)) if *seen == run => Some(home.bind(py).clone()),
            _ => None,
        }
    }

    /// Gives a job to a greenlet, and switches to it.
    pub(super) fn begin(slf: &Bound<'_, Self>, job: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let idle = this.idle.lock().pop();
        let greenlet = match idle {
            Some(greenlet) => greenlet.into_bound(py),
            None => method0(slf.as_any(), name!("new_greenlet"))?,
        };
        greenlet.setattr(name!("job"), job)?;
        greenlet.setattr(name!("gr_context"), job.getattr(name!("context"))?)?;
        Hub::enter(slf, &greenlet, None)
    }

    /// A greenlet ended outside of its job's function: by KeyboardInterrupt, or because a signal's handler raised between the
    /// function and the greenlet. What waits for the job must learn that.
    #[cold]
    fn failed(scheduler: &Bound<'_, Scheduler>, greenlet: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = scheduler.py();
        if let Ok(job) = greenlet.getattr(name!("job")) {
            let value = error.value(py).clone().into_any();
            if method1(&job, name!("_lost"), &value)?.is_truthy()? {
                return Ok(());
            }
        }
        Scheduler::report(scheduler, "A greenlet has failed", error)
    }

    /// Switches from the loop to a spawned greenlet, in which `exception` is raised if there is one.
    pub(super) fn enter(
        slf: &Bound<'_, Self>,
        greenlet: &Bound<'_, PyAny>,
        exception: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let api = &green(py)?.api;
        let scheduler = this.scheduler.bind(py);
        let home = match this.home(py) {
            Some(home) => home,
            None => {
                let home = api.current(py)?;
                let seen = (scheduler.get().run_number(), home.clone().unbind());
                let before = this.home.lock().replace(seen);
                drop(before);
                home
            }
        };
        api.adopt(greenlet, &home)?;
        Scheduler::hide(scheduler)?;
        this.count_switch();
        let outer = this.running.lock().replace(greenlet.clone().unbind());
        let outcome = match exception {
            Some(exception) => api.throw(greenlet, exception),
            None => api.switch(greenlet, None),
        };
        // The one that comes back may be another one (`go_on`).
        let left = std::mem::replace(&mut *this.running.lock(), outer);
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => {
                let failed = left.as_ref().map_or(greenlet, |left| left.bind(py));
                Hub::failed(scheduler, failed, error)
            }
        }
    }

    /// Switches from one spawned greenlet to another, as the loop would do next.
    #[inline]
    pub(super) fn go_on<'py>(
        slf: &Bound<'py, Self>,
        home: &Bound<'py, PyAny>,
        greenlet: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let api = &green(py)?.api;
        api.adopt(&greenlet, home)?;
        Scheduler::hide(this.scheduler.bind(py))?;
        this.count_switch();
        let before = this.running.lock().replace(greenlet.clone().unbind());
        drop(before);
        api.switch(&greenlet, None)
    }

    /// For the watchdog: the greenlet that runs has let others run.
    #[inline]
    pub(super) fn count_switch(&self) {
        self.switches.fetch_add(1, Ordering::Relaxed);
    }
}

#[pymethods]
impl Hub {
    #[new]
    fn new(scheduler: Py<Scheduler>) -> Hub {
        Hub {
            scheduler,
            running: SharedCell::new(None),
            switches: AtomicU64::new(0),
            idle: SharedCell::new(Vec::new()),
            home: SharedCell::new(None),
            spare: SharedCell::new(None),
        }
    }

    /// Leaves the thread to the loop until there is another job. False: this greenlet is not needed any more.
    #[pyo3(name = "_rest", signature = (greenlet, /))]
    fn rest(&self, greenlet: &Bound<'_, PyAny>) -> PyResult<bool> {
        let api = &green(greenlet.py())?.api;
        let Some(parent) = api.parent(greenlet) else {
            return Ok(false);
        };
        {
            let mut idle = self.idle.lock();
            if idle.len() >= IDLE {
                return Ok(false);
            }
            idle.push(greenlet.clone().unbind());
        }
        api.switch(&parent, None).map(|_| true)
    }

    /// Gives up the greenlets that wait for jobs.
    #[pyo3(name = "_take_idle")]
    fn take_idle(&self) -> Vec<Py<PyAny>> {
        std::mem::take(&mut *self.idle.lock())
    }

    /// Switches from the loop to a spawned greenlet, in which `exception` is raised if there is one.
    #[pyo3(name = "_enter", signature = (greenlet, exception = None, /))]
    fn py_enter(
        slf: &Bound<'_, Self>,
        greenlet: &Bound<'_, PyAny>,
        exception: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        Hub::enter(slf, greenlet, exception)
    }

    /// Has a greenlet begin a job in the next turn. The answer's `stop` prevents it.
    #[pyo3(name = "_start", signature = (job, /))]
    fn start(slf: &Bound<'_, Self>, job: Py<PyAny>) -> PyResult<Py<Parking>> {
        slf.get().scheduler.get().check_open()?;
        let parking = Parking::of_job(slf, job)?;
        Parking::wake(&parking)?;
        Ok(parking.unbind())
    }

    #[getter(_loop)]
    fn py_scheduler(&self, py: Python<'_>) -> Py<Scheduler> {
        self.scheduler.clone_ref(py)
    }

    /// The spawned greenlet that runs now.
    #[getter(_running)]
    fn running(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.running.lock().as_ref().map(|running| running.clone_ref(py))
    }

    /// How often the loop has switched to a spawned greenlet.
    #[getter(_switches)]
    fn switches(&self) -> u64 {
        self.switches.load(Ordering::Relaxed)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        if let Some(running) = self.running.look() {
            visit.call(&*running)?;
        }
        if let Some(idle) = self.idle.look() {
            idle.iter().try_for_each(|greenlet| visit.call(greenlet))?;
        }
        if let Some(spare) = self.spare.look() {
            visit.call(&*spare)?;
        }
        match self.home.look().as_deref() {
            Some(Some((_, home))) => visit.call(home),
            _ => Ok(()),
        }
    }
}
