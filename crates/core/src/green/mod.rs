//! `proact.green`: what a greenlet does that waits for a socket. How greenlets wait is in `reactor/parking.rs`.

pub mod calls;
mod held;
mod limit;
pub mod sockets;
pub mod waits;
pub mod wire;

use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use crate::reactor::scheduler::Scheduler;

#[pymethods]
impl Scheduler {
    /// Whether the loop's `_idle` is called before a wait that nothing known can end.
    #[pyo3(name = "_tell_idle", signature = (on, /))]
    fn set_tells_idle(&self, on: bool) {
        self.tells_idle.store(on, Ordering::Relaxed);
    }
}
