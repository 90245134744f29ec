//! Joins the scheduler to `asyncio.BaseEventLoop`: its flags, the private methods by which it runs a loop, and the hooks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proact_driver::Spin;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::asyncio::factories::awaited_future;
use crate::py::make::{name, py_error};
use crate::py::native_method::{self, native_method};
use crate::reactor::hooks::Hooks;
use crate::reactor::scheduler::Scheduler;

impl Scheduler {
    pub fn server_takes_transport(&self, py: Python<'_>) -> PyResult<bool> {
        self.hooks()?.server_takes_transport.bind(py).is_truthy()
    }

    pub fn is_buffered(&self, protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
        protocol.is_instance(self.hooks()?.buffered_protocol.bind(protocol.py()))
    }
}

#[pymethods]
impl Scheduler {
    /// Takes the hooks from the loop's class.
    #[pyo3(name = "_configure")]
    fn configure(slf: &Bound<'_, Self>) -> PyResult<()> {
        let hooks = Hooks::of(slf.get_type().as_any(), awaited_future)?;
        slf.get().set_hooks(hooks);
        Ok(())
    }

    /// Begins a run in this thread: until `_let_go` is given the answer, other threads are refused.
    #[pyo3(name = "_take_over")]
    fn take_over(&self) -> PyResult<usize> {
        self.io.take_over()
    }

    /// Has waits ask the engine again and again for so many seconds before they sleep; 0: they sleep at once.
    #[pyo3(name = "_set_spin", signature = (seconds, /))]
    fn set_spin(&self, seconds: f64) -> PyResult<()> {
        let longest = Spin::LONGEST.as_secs_f64();
        if !(0.0..=longest).contains(&seconds) {
            let message = format!("spin: seconds from 0 to {longest}, not {seconds}");
            return Err(py_error::<PyValueError>(message));
        }
        let _claim = self.claim()?;
        let limit = Duration::from_secs_f64(seconds);
        self.io.get()?.spin = (!limit.is_zero()).then(|| Box::new(Spin::new(limit)));
        Ok(())
    }

    #[pyo3(name = "_let_go", signature = (after, /))]
    fn let_go(&self, after: usize) {
        self.io.let_go(after);
    }

    /// Runs turns of the loop until it is stopped. Outside of `run_forever` it runs a single turn.
    #[pyo3(name = "_run_once")]
    fn run_once(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().check_open()?;
        let single = slf.getattr(name!("_thread_id"))?.is_none();
        Scheduler::run(slf, single)
    }

    #[pyo3(name = "_write_to_self")]
    fn write_to_self(&self) {
        self.wake();
    }

    /// Called by asyncio's own timer handles, which debug mode uses.
    #[pyo3(name = "_timer_handle_cancelled", signature = (handle, /))]
    fn timer_handle_cancelled(&self, handle: Bound<'_, PyAny>) {
        let _ = handle;
        self.cancelled.add();
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    #[setter(_stopping)]
    fn set_stopping(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.stopping.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_closed)]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    #[setter(_closed)]
    fn set_closed(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.closed.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_debug)]
    fn debug(&self) -> bool {
        self.is_debug()
    }

    #[setter(_debug)]
    fn set_debug_flag(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.debug.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }
}

native_method!(get_debug, |call| {
    call.no_arguments("get_debug")?;
    // SAFETY: a method of this class.
    let scheduler = unsafe { call.object_of::<Scheduler>() };
    Ok(PyBool::new(call.py(), scheduler.get().is_debug())
        .to_owned()
        .into_any()
        .unbind())
});

/// Gives the class the method that each new future and task calls.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let doc = c"get_debug($self)\n--\n\nWhether the loop is in debug mode.";
    native_method::add(&py.get_type::<Scheduler>(), c"get_debug", get_debug, doc)
}
