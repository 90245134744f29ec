//! What programs see of a watcher.

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{GeventWatcher, HAPPENED, Kind, within};
use crate::gevent::hub_loop::GeventLoop;
use crate::gevent::waiting::Waiting;
use crate::py::make::{Text, name, py_error};

#[pymethods]
impl GeventWatcher {
    /// A watcher that Python feeds.
    #[new]
    #[pyo3(signature = (owner, r#ref = true, priority = None))]
    fn py_new(owner: &Bound<'_, GeventLoop>, r#ref: bool, priority: Option<i64>) -> PyResult<GeventWatcher> {
        GeventWatcher::new(owner, Kind::Fed("watcher"), r#ref, priority)
    }

    /// Begins to watch: `callback(*args)` is called for each event.
    #[pyo3(signature = (callback, *args))]
    fn start(slf: &Bound<'_, Self>, callback: Bound<'_, PyAny>, args: Bound<'_, PyTuple>) -> PyResult<()> {
        GeventWatcher::begin(slf, callback, args, false)
    }

    fn stop(slf: &Bound<'_, Self>) {
        GeventWatcher::end(slf);
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method0(name!("stop")).map(drop)
    }

    /// Has the callback called later in this turn, as if `events` had come.
    #[pyo3(name = "feed", signature = (events, callback, *args))]
    fn py_feed(
        slf: &Bound<'_, Self>,
        events: u32,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        if !callback.is_callable() {
            return Err(py_error::<PyTypeError>("callback must be callable"));
        }
        let mut held = slf.get().held.lock();
        let old = (
            held.callback.replace(callback.unbind()),
            held.args.replace(args.unbind()),
            held.waiting.take(),
        );
        drop(held);
        drop(old);
        GeventWatcher::feed(slf, events.max(1));
        Ok(())
    }

    /// An event has come, for a watcher that Python feeds.
    fn _happened(slf: &Bound<'_, Self>) {
        if slf.get().held.lock().active {
            GeventWatcher::feed(slf, HAPPENED);
        }
    }

    #[getter]
    fn r#loop(&self, py: Python<'_>) -> Py<GeventLoop> {
        self.owner.clone_ref(py)
    }

    #[getter]
    fn active(&self) -> bool {
        self.held.lock().active
    }

    #[getter]
    fn pending(&self) -> bool {
        self.held.lock().pending != 0
    }

    #[getter]
    fn callback(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (py, held) = (slf.py(), slf.get().held.lock());
        let callback = held.callback.as_ref().map(|callback| callback.clone_ref(py));
        let greenlet = held
            .waiting
            .as_ref()
            .map(|waiting| waiting.greenlet().clone_ref(py));
        drop(held);
        match greenlet {
            Some(greenlet) => Waiting::shown(py, greenlet).map(Some),
            None => Ok(callback),
        }
    }

    #[setter]
    fn set_callback(&self, callback: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        if let Some(callback) = &callback
            && !callback.is_callable()
        {
            return Err(py_error::<PyTypeError>(format!(
                "Expected callable, not {}",
                callback.repr()?
            )));
        }
        let old = std::mem::replace(&mut self.held.lock().callback, callback.map(Bound::unbind));
        drop(old);
        Ok(())
    }

    #[getter]
    fn args(&self, py: Python<'_>) -> Option<Py<PyTuple>> {
        let held = self.held.lock();
        held.args.as_ref().map(|args| args.clone_ref(py))
    }

    #[setter]
    fn set_args(&self, args: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let args = match args.map(Bound::cast_into::<PyTuple>).transpose() {
            Ok(args) => args.map(Bound::unbind),
            Err(_) => return Err(py_error::<PyTypeError>("args must be a tuple or None")),
        };
        let old = std::mem::replace(&mut self.held.lock().args, args);
        drop(old);
        Ok(())
    }

    /// Whether the loop goes on for this watcher's sake.
    #[getter]
    fn r#ref(&self) -> bool {
        self.held.lock().counts
    }

    #[setter]
    fn set_ref(&self, counts: bool) {
        let mut held = self.held.lock();
        let changed = std::mem::replace(&mut held.counts, counts) != counts;
        let active = held.active;
        drop(held);
        if changed && active {
            self.owner.get().held.lock().references += if counts { 1 } else { -1 };
        }
    }

    #[getter]
    fn priority(&self) -> i8 {
        self.held.lock().priority
    }

    #[setter]
    fn set_priority(&self, priority: i64) -> PyResult<()> {
        let mut held = self.held.lock();
        if held.active {
            drop(held);
            return Err(py_error::<PyAttributeError>(
                "Cannot set priority of an active watcher",
            ));
        }
        held.priority = within(Some(priority));
        Ok(())
    }

    fn _format(&self) -> Text<&'static str> {
        Text("")
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(slf: &Bound<'_, Self>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        slf.call_method0(name!("close")).map(drop)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Text<String>> {
        let (py, this) = (slf.py(), slf.get());
        let class = slf.get_type().name()?.to_string();
        let name = match this.name() {
            "watcher" => class.as_str(),
            name => name,
        };
        let details = slf.call_method0(name!("_format"))?;
        let mut text = format!("<{name} at {:p}{details}", slf.as_ptr());
        for (set, word) in [(this.active(), " active"), (this.pending(), " pending")] {
            text.push_str(if set { word } else { "" });
        }
        if let Some(callback) = GeventWatcher::callback(slf)? {
            text += &format!(" callback={}", callback.bind(py).repr()?);
        }
        if let Some(args) = this.args(py) {
            // The watcher itself may be among its arguments.
            let mut shown = Vec::new();
            for arg in args.bind(py).iter() {
                shown.push(if arg.is(slf) {
                    "...".into()
                } else {
                    arg.repr()?.to_string()
                });
            }
            text += &format!(" args=({})", shown.join(", "));
        }
        Ok(Text(text + ">"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        let Some(held) = self.held.look() else {
            return Ok(());
        };
        visit.call(&held.callback)?;
        visit.call(&held.args)?;
        if let Some(waiting) = &held.waiting {
            waiting.traverse(&visit)?;
        }
        match &held.kind {
            Kind::Io { polls, limit, .. } => {
                visit.call(limit)?;
                polls.iter().flatten().try_for_each(|poll| visit.call(poll))
            }
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let mut held = self.held.lock();
        let old = (held.callback.take(), held.args.take(), held.waiting.take());
        drop(held);
        drop(old);
    }
}
