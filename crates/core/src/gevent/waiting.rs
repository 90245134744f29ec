//! A greenlet that waits in a watcher, in place of a callback. `hub_wait.rs` begins the wait.
//!
//! For gevent it looks like a callback: `watcher.callback` is an object whose `__self__` has `throw`, by which `cancel_wait` and
//! the closing of a socket reach the greenlet.

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyTimeoutError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use crate::py::call::exception;
use crate::py::greenlet::Api;
use crate::py::make::{Text, name, py_error};

/// What gevent is here.
pub struct Gevent {
    pub api: Api,
    /// Its class of hubs. A hub of another class may switch in its own way.
    pub hub: Py<PyType>,
    /// The classes of greenlets that are switched to by the C API: gevent's, and greenlet's.
    classes: [Py<PyType>; 2],
    /// The exception for a greenlet that something else has switched to.
    pub invalid_switch: Py<PyAny>,
}

static GEVENT: PyOnceLock<Gevent> = PyOnceLock::new();

/// Takes gevent's classes of hubs and of greenlets, greenlet's, and gevent's `InvalidSwitchError`.
#[pyfunction]
#[pyo3(signature = (hub, greenlet, plain, invalid_switch, /))]
pub fn configure_gevent(
    py: Python<'_>,
    hub: Py<PyType>,
    greenlet: Py<PyType>,
    plain: Py<PyType>,
    invalid_switch: Py<PyAny>,
) -> PyResult<()> {
    let api = Api::load(py)?;
    let made = Gevent {
        api,
        hub,
        classes: [greenlet, plain],
        invalid_switch,
    };
    let _ = GEVENT.set(py, made);
    Ok(())
}

pub fn gevent(py: Python<'_>) -> PyResult<&Gevent> {
    GEVENT
        .get(py)
        .ok_or_else(|| py_error::<PyRuntimeError>("gevent was not configured"))
}

impl Gevent {
    /// Whether a greenlet is switched to and thrown into as others are: a class may do so in its own way.
    #[inline]
    pub fn is_plain(&self, greenlet: &Bound<'_, PyAny>) -> PyResult<bool> {
        let class = greenlet.get_type();
        if self.classes.iter().any(|known| class.is(known)) {
            return Ok(true);
        }
        self.inherits(&class)
    }

    #[cold]
    fn inherits(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let (switch, throw) = (class.getattr(name!("switch"))?, class.getattr(name!("throw"))?);
        for known in &self.classes {
            let known = known.bind(class.py());
            if known.getattr(name!("switch"))?.is(&switch) && known.getattr(name!("throw"))?.is(&throw) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What ends the wait of a greenlet.
pub enum Waiting {
    /// The loop switches to it.
    Switch(Py<PyAny>),
    /// Its time is over: the loop raises this in it, or `TimeoutError`.
    Throw(Py<PyAny>, Option<Py<PyAny>>),
}

impl Waiting {
    pub fn greenlet(&self) -> &Py<PyAny> {
        match self {
            Waiting::Switch(greenlet) | Waiting::Throw(greenlet, _) => greenlet,
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.greenlet())?;
        match self {
            Waiting::Switch(_) => Ok(()),
            Waiting::Throw(_, error) => visit.call(error),
        }
    }

    /// Ends the wait. Only the hub calls this. Returns the error by which the greenlet has ended.
    pub fn end(self, py: Python<'_>) -> PyResult<()> {
        let api = &gevent(py)?.api;
        match self {
            Waiting::Switch(greenlet) => api.switch(greenlet.bind(py), None).map(drop),
            Waiting::Throw(greenlet, error) => {
                let error = error.unwrap_or_else(|| {
                    let over = py_error::<PyTimeoutError>("timed out");
                    exception(py, &over).into_any()
                });
                api.throw(greenlet.bind(py), error.bind(py)).map(drop)
            }
        }
    }

    /// What `watcher.callback` is for a greenlet.
    pub fn shown(py: Python<'_>, greenlet: Py<PyAny>) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, GeventWaiter { greenlet })?.into_any())
    }
}

/// A greenlet that waits natively, as gevent's code sees it: the callback of a watcher.
#[pyclass(frozen, module = "proact._core")]
pub struct GeventWaiter {
    greenlet: Py<PyAny>,
}

#[pymethods]
impl GeventWaiter {
    #[getter]
    fn __self__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Raises an exception in the greenlet. Only the hub calls this.
    #[pyo3(signature = (*error))]
    fn throw(&self, error: &Bound<'_, PyTuple>) -> PyResult<()> {
        let greenlet = self.greenlet.bind(error.py());
        greenlet.call_method1(name!("throw"), error).map(drop)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let greenlet = self.greenlet.bind(py).repr()?;
        Ok(Text(format!("<waiter of {greenlet}>")))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.greenlet)
    }
}
