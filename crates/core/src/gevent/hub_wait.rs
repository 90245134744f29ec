//! Waiting for an fd or a time without Python in between: `hub.wait(watcher)`, by greenlet's C API.
//!
//! A watcher that is started in the ordinary way calls a function of gevent's, which switches to the greenlet. Here the watcher
//! has the greenlet itself (`waiting.rs`), and the loop switches to it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::kinds::{GeventIo, GeventTimer};
use super::waiting::{Gevent, Waiting, gevent};
use super::watcher::{GeventWatcher, Kind};
use crate::py::call::{attribute, method0};
use crate::py::make::{Text, name, py_error};
use crate::py::native_method::{self, native_method};
use crate::reactor::clock::nanoseconds;

/// The time that a wait may take, and what is raised when it is over (`None`: TimeoutError).
pub struct Limit<'py> {
    pub seconds: f64,
    pub error: Option<Bound<'py, PyAny>>,
}

impl GeventWatcher {
    /// Starts the timer of a limited wait. It belongs to the watcher and is used again, as a timer for each wait costs more.
    fn limit<'py>(
        slf: &Bound<'py, Self>,
        greenlet: &Bound<'py, PyAny>,
        limit: Limit<'py>,
    ) -> PyResult<Bound<'py, Self>> {
        let (py, owner) = (slf.py(), &slf.get().owner);
        let known = match &slf.get().held.lock().kind {
            Kind::Io {
                limit: Some(known), ..
            } => Some(known.clone_ref(py).into_bound(py)),
            _ => None,
        };
        let timer = match known {
            Some(known) => known,
            None => {
                let kind = Kind::Timer {
                    after: 0,
                    repeat: 0,
                    at: 0,
                    order: 0,
                };
                // The priority of gevent's timeouts: what has come in time is received.
                let made = Bound::new(py, GeventWatcher::new(owner.bind(py), kind, true, Some(-1))?)?;
                if let Kind::Io { limit, .. } = &mut slf.get().held.lock().kind {
                    limit.get_or_insert_with(|| made.clone().unbind());
                }
                made
            }
        };
        if let Kind::Timer { after, .. } = &mut timer.get().held.lock().kind {
            *after = nanoseconds(limit.seconds);
        }
        let error = limit.error.map(Bound::unbind);
        let waiting = Waiting::Throw(greenlet.clone().unbind(), error);
        GeventWatcher::begin_wait(&timer, waiting, false)?;
        Ok(timer)
    }

    /// Takes note that the wait of the greenlet that runs now is over. Whether the loop has ended it.
    fn was_woken(slf: &Bound<'_, Self>, greenlet: &Bound<'_, PyAny>) -> bool {
        let mut held = slf.get().held.lock();
        if std::mem::replace(&mut held.woken, false) {
            return true;
        }
        let is_mine = held
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.greenlet().is(greenlet));
        drop(held);
        if is_mine {
            GeventWatcher::end(slf);
        }
        false
    }
}

/// Leaves the thread to the hub until the event has come. False: that is not to be done in this way, and nothing was done.
///
/// # Errors
/// What is raised in the greenlet while it waits. Nothing waits any more then.
pub fn wait<'py>(
    hub: &Bound<'py, PyAny>,
    watcher: &Bound<'py, GeventWatcher>,
    limit: Option<Limit<'py>>,
    edges: bool,
) -> PyResult<bool> {
    let py = hub.py();
    let gevent = gevent(py)?;
    let greenlet = gevent.api.current(py)?;
    if greenlet.is(hub) || watcher.get().held.lock().is_used() || !gevent.is_plain(&greenlet)? {
        return Ok(false);
    }
    let is_plain = hub.get_type().is(&gevent.hub);
    if is_plain && let Some(switch_out) = attribute(&greenlet, name!("switch_out"))? {
        switch_out.call0()?;
    }
    let timer = match limit {
        Some(limit) => Some(GeventWatcher::limit(watcher, &greenlet, limit)?),
        None => None,
    };
    let begun = GeventWatcher::begin_wait(watcher, Waiting::Switch(greenlet.clone().unbind()), edges);
    let outcome = match begun {
        Ok(true) if is_plain => gevent.api.switch(hub, None),
        Ok(true) => method0(hub, name!("switch")),
        Ok(false) => {
            timer.iter().for_each(GeventWatcher::end);
            return Ok(false);
        }
        Err(error) => Err(error),
    };
    timer.iter().for_each(GeventWatcher::end);
    let woken = GeventWatcher::was_woken(watcher, &greenlet);
    match outcome {
        Ok(_) if woken => Ok(true),
        Ok(value) => Err(invalid_switch(gevent, hub, watcher, &greenlet, &value)),
        Err(error) => Err(error),
    }
}

#[cold]
fn invalid_switch(
    gevent: &Gevent,
    hub: &Bound<'_, PyAny>,
    watcher: &Bound<'_, GeventWatcher>,
    greenlet: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> PyErr {
    let message =
        format!("Invalid switch into {greenlet:?}: got {value:?} (waiting on {hub:?} with {watcher:?})");
    match gevent.invalid_switch.bind(hub.py()).call1((Text(message),)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// gevent's own `Hub.wait`.
static ORIGINAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

// `hub.wait(watcher)`.
native_method!(native_wait, |call| {
    if let Some(watcher) = call.only()
        && (watcher.is_exact_instance_of::<GeventIo>() || watcher.is_exact_instance_of::<GeventTimer>())
        && let Ok(watcher) = watcher.cast::<GeventWatcher>()
        && wait(call.object(), watcher, None, false)?
    {
        return Ok(call.py().None());
    }
    let original = ORIGINAL
        .get(call.py())
        .ok_or_else(|| py_error::<PyRuntimeError>("no hub is known"))?;
    call.pass_on(original.bind(call.py()))
});

/// Gives gevent's class of hubs a native `wait`. A second call has no effect.
#[pyfunction]
#[pyo3(signature = (hub, /))]
pub fn install_gevent_wait(hub: &Bound<'_, PyType>) -> PyResult<()> {
    if ORIGINAL
        .set(hub.py(), hub.getattr(name!("wait"))?.unbind())
        .is_err()
    {
        return Ok(());
    }
    native_method::add(
        hub,
        c"wait",
        native_wait,
        c"wait($self, watcher)\n--\n\nWait until the watcher's event has come.",
    )
}
