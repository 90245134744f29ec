//! `create_future` and `create_task`: asyncio's own futures and tasks, made without a Python frame in between.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use crate::py::make::{Name, dict, name, tuple};
use crate::reactor::scheduler::Scheduler;

static FUTURE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static TASK_NAMES: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

/// A class of asyncio, looked up once.
fn import_once<'py>(
    py: Python<'py>,
    known: &'static PyOnceLock<Py<PyAny>>,
    name: &'static Name,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let class = known.get_or_try_init(py, || {
        py.import(name!("asyncio"))?.getattr(name).map(Bound::unbind)
    })?;
    Ok(class.bind(py))
}

fn intern_names<'py>(
    py: Python<'py>,
    known: &'static PyOnceLock<Py<PyTuple>>,
    names: &[&'static Name],
) -> PyResult<&'py Bound<'py, PyTuple>> {
    let names = known.get_or_try_init(py, || {
        let names = names.iter().map(|name| Ok(name.get(py)?.clone().into_any()));
        tuple(py, &names.collect::<PyResult<Vec<_>>>()?).map(Bound::unbind)
    })?;
    Ok(names.bind(py))
}

/// `kind(*positional, **keywords)`, where the last arguments go by `names`.
fn construct<'py>(
    kind: &Bound<'py, PyAny>,
    args: &[&Bound<'py, PyAny>],
    names: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let pointers: [*mut ffi::PyObject; 4] =
        std::array::from_fn(|index| args.get(index).map_or(std::ptr::null_mut(), |arg| arg.as_ptr()));
    let positional = args.len() - names.len();
    // SAFETY: `positional` arguments, then one for each name, all alive for the call.
    unsafe {
        let result = ffi::PyObject_Vectorcall(kind.as_ptr(), pointers.as_ptr(), positional, names.as_ptr());
        Bound::from_owned_ptr_or_err(kind.py(), result)
    }
}

/// An argument by keyword: not given is not the same as None.
struct Keyword<'py>(Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Keyword<'py> {
    type Error = std::convert::Infallible;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Keyword(Some(object.to_owned())))
    }
}

/// `kind(*args, loop=scheduler)`
fn of_loop<'py>(
    scheduler: &Bound<'py, Scheduler>,
    kind: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = scheduler.py();
    // Taken while it is in use, because the call may come here again.
    let kept = scheduler.get().keywords.lock().take();
    let keywords = kept.map_or_else(|| dict(py), |kept| Ok(kept.into_bound(py)))?;
    keywords.set_item(name!("loop"), scheduler)?;
    // SAFETY: three live objects, of the types that are required; returns a new reference or null with an exception set.
    let made = unsafe {
        let made = ffi::PyObject_Call(kind.as_ptr(), args.as_ptr(), keywords.as_ptr());
        Bound::from_owned_ptr_or_err(py, made)
    };
    // A loop that is kept by its own dictionary would live for ever.
    if made.is_ok() && keywords.set_item(name!("loop"), py.None()).is_ok() {
        let other = scheduler.get().keywords.lock().replace(keywords.unbind());
        drop(other);
    }
    made
}

fn future<'py>(scheduler: &Bound<'py, Scheduler>) -> PyResult<Bound<'py, PyAny>> {
    let py = scheduler.py();
    of_loop(
        scheduler,
        import_once(py, &FUTURE, name!("Future"))?,
        &PyTuple::empty(py),
    )
}

/// A future that a task may yield, as `await` does.
pub fn awaited_future<'py>(scheduler: &Bound<'py, Scheduler>) -> PyResult<Bound<'py, PyAny>> {
    let future = future(scheduler)?;
    future.setattr(name!("_asyncio_future_blocking"), true)?;
    Ok(future)
}

#[pymethods]
impl Scheduler {
    /// A future of this loop.
    pub fn create_future<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        future(slf)
    }

    /// A task of this loop. With a task factory, in debug mode, or with keywords of newer Pythons, `BaseEventLoop` makes it.
    #[pyo3(signature = (coro, *, name = Keyword(None), context = Keyword(None), **kwargs))]
    fn create_task<'py>(
        slf: &Bound<'py, Self>,
        coro: Bound<'py, PyAny>,
        name: Keyword<'py>,
        context: Keyword<'py>,
        kwargs: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.check_open()?;
        let (name, context) = (name.0, context.0);
        let plain = kwargs.is_none() && !this.is_debug();
        if plain && slf.getattr(name!("_task_factory"))?.is_none() {
            let kind = import_once(py, &TASK, name!("Task"))?;
            if name.is_none() && context.is_none() {
                return of_loop(slf, kind, &tuple(py, std::slice::from_ref(&coro))?);
            }
            let none = py.None().into_bound(py);
            let (name, context) = (name.as_ref().unwrap_or(&none), context.as_ref().unwrap_or(&none));
            let names = intern_names(py, &TASK_NAMES, &[name!("loop"), name!("name"), name!("context")])?;
            return construct(kind, &[&coro, slf.as_any(), name, context], names);
        }
        // Pass on the keywords that were given, also those that are None: a task factory sees the difference.
        let keywords = kwargs.map_or_else(|| dict(py), Ok)?;
        for (key, value) in [(name!("name"), name), (name!("context"), context)] {
            if let Some(value) = value {
                keywords.set_item(key, value)?;
            }
        }
        let base = py.import(name!("asyncio"))?.getattr(name!("BaseEventLoop"))?;
        base.getattr(name!("create_task"))?
            .call((slf, coro), Some(&keywords))
    }
}
