//! Transports: what stands between a protocol and the engine.
//!
//! `stream.rs` is the transport and its state; the life of its data is told in `receive.rs`, `send.rs`, `file.rs` and
//! `closing.rs`. `datagram.rs` is the one of datagram sockets, `pipe.rs` is for what is no socket, and `tls/` stands
//! between a transport and the application's protocol.

mod closing;
pub mod datagram;
pub mod file;
mod flow;
pub mod listener;
mod outbox;
pub mod pipe;
mod protocol;
mod rare;
mod receive;
mod send;
pub mod stream;
pub mod tls;

use std::os::fd::RawFd;

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::{PyClass, ffi};

use self::send::FUTILE_WRITES;
use crate::call::{io_error, one_after_other};
use crate::ending::finalise;
use crate::make::{Text, name};
use crate::scheduler::Scheduler;

/// A new instance of a class with a `__dict__`, which is made only for those who put something in: CPython 3.11 and 3.12 make
/// one with each instance, 3.11 may collect garbage meanwhile, and with no memory for it both drop the instance, while there
/// is nothing yet in it to be visited or dropped.
fn instance<T: PyClass>(py: Python<'_>, value: impl Into<PyClassInitializer<T>>) -> PyResult<Bound<'_, T>> {
    let class = T::type_object_raw(py);
    // SAFETY: called with the GIL; sets a flag of the interpreter's, and hides from it where an instance has its dictionary. No
    // code of Python's runs until both are as they were.
    unsafe {
        let collects = cfg!(not(Py_3_12)) && ffi::PyGC_Disable() != 0;
        let place = std::mem::replace(&mut (*class).tp_dictoffset, 0);
        let made = Bound::new(py, value);
        (*class).tp_dictoffset = place;
        if collects {
            ffi::PyGC_Enable();
        }
        made
    }
}

/// An fd that its transport has done with: closed if it is ours to close, as `released` says.
fn give_up(py: Python<'_>, scheduler: &Scheduler, fd: RawFd, released: PyResult<bool>) -> PyResult<()> {
    let ours = matches!(released, Ok(true));
    let given_up = scheduler
        .io
        .get()
        .and_then(|mut io| io.give_up(fd, ours).map_err(io_error));
    one_after_other(py, released.map(drop), given_up)
}

/// One more write into a lost connection: a program that goes on so is told in the log, as asyncio tells it.
fn futile_write(py: Python<'_>, count: u32) -> PyResult<()> {
    if count < FUTILE_WRITES {
        return Ok(());
    }
    let logger = py.import(name!("asyncio.log"))?.getattr(name!("logger"))?;
    logger
        .call_method1(name!("warning"), (Text("socket.send() raised exception."),))
        .map(drop)
}

/// A transport that nobody closed is gone: its fd is closed if it is `ours`, which `release` finds out, its number is free
/// for others, and the program is told.
fn abandoned(scheduler: &Scheduler, fd: RawFd, release: impl FnOnce(Python<'_>) -> PyResult<bool>) {
    finalise(|py| {
        let ours = release(py);
        scheduler.give_up_later(fd, matches!(ours, Ok(true)));
        one_after_other(py, ours.map(drop), warn_unclosed(py, &format!("fd={fd}")))
    });
}

/// Tells of a transport that nobody closed; `which` says more of it.
fn warn_unclosed(py: Python<'_>, which: &str) -> PyResult<()> {
    let message = std::ffi::CString::new(format!("unclosed transport {which}")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1)
}
