//! For `green.stacks()`: what greenlets wait for that wait in a native call, of which their stacks show nothing.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use super::wire::Wire;
use crate::py::make::{Int, Text};
use crate::reactor::fds::Side;
use crate::reactor::operation::Operation;
use crate::reactor::scheduler::Scheduler;

/// A greenlet, what it waits to do, and the socket or its fd.
type Wait = (Py<PyAny>, Text<&'static str>, Py<PyAny>);

/// The greenlets of a loop that wait for a socket.
#[pyfunction]
#[pyo3(signature = (scheduler, /))]
pub fn green_waits(scheduler: &Bound<'_, Scheduler>) -> PyResult<Vec<Wait>> {
    let py = scheduler.py();
    let owners: Vec<Py<PyAny>> = {
        let io = scheduler.get().io.get()?;
        let in_flight = io.slots.targets().filter_map(|target| target.object());
        let in_line = io.fds.waiting().map(|waiting| waiting.object());
        in_flight
            .chain(in_line)
            .map(|object| object.clone_ref(py))
            .collect()
    };
    let mut waits = Vec::new();
    for owner in &owners {
        if let Ok(wire) = owner.bind(py).cast::<Wire>() {
            let (greenlets, fd) = wire.get().waiting(py);
            for greenlet in greenlets {
                waits.push((greenlet, Text("receive from"), Int::new(fd).into_py_any(py)?));
            }
        } else if let Ok(operation) = owner.bind(py).cast::<Operation>()
            && let Some((greenlet, side, socket)) = operation.get().waited_for(py)
        {
            let what = match side {
                Side::Read => "receive from",
                Side::Write => "send to",
            };
            waits.push((greenlet, Text(what), socket));
        }
    }
    Ok(waits)
}
