//! What the loop and its engine tell about themselves, as dictionaries.

use proact_driver::{Config, Engine, engine_report, locked};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::scheduler::Scheduler;

#[pymethods]
impl Scheduler {
    /// Counters of the engine since the loop was made.
    #[pyo3(name = "_stats")]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Copied first: no guard is held while dictionaries are made.
        let (stats, slots) = {
            let io = self.io.get()?;
            (io.driver.stats().clone(), io.slots.targets().count())
        };
        let readers = self.readers.get()?.len();
        let dict = PyDict::new(py);
        let (submitted, completed) = (PyDict::new(py), PyDict::new(py));
        for (name, count) in stats.submitted() {
            submitted.set_item(name, count)?;
        }
        for (name, count) in stats.completed() {
            completed.set_item(name, count)?;
        }
        dict.set_item("submitted", submitted)?;
        dict.set_item("completed", completed)?;
        dict.set_item("in_flight", stats.in_flight)?;
        dict.set_item("in_flight_max", stats.in_flight_max)?;
        dict.set_item("syscalls", stats.syscalls)?;
        dict.set_item("wait_seconds", stats.wait_ns as f64 / 1e9)?;
        dict.set_item("buffers", stats.buffers)?;
        dict.set_item("buffer_exhaustions", stats.buffer_exhaustions)?;
        dict.set_item("overflows", stats.overflows)?;
        dict.set_item("rebuilds", stats.rebuilds)?;
        dict.set_item("fallbacks", &stats.fallbacks)?;
        dict.set_item("readers", readers)?;
        let (scheduled, cancelled) = self.scheduled(py)?;
        dict.set_item("handles", scheduled)?;
        dict.set_item("cancelled", cancelled)?;
        dict.set_item("slots", slots)?;
        Ok(dict)
    }

    /// The engine's features and opcodes, by name; empty for engines without a ring.
    #[pyo3(name = "_features")]
    fn features<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let features = self.io.get()?.driver.features().cloned();
        let (flags, opcodes) = (PyDict::new(py), PyDict::new(py));
        if let Some(features) = features {
            for (name, has) in features.flags {
                flags.set_item(name, has)?;
            }
            for (name, allowed) in features.opcodes {
                opcodes.set_item(name, allowed)?;
            }
        }
        Ok((flags, opcodes))
    }
}

/// Engines by name, in order of preference: `None` if it can be had, else why not.
#[pyfunction]
pub fn probe_engines(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for report in engine_report(&Config::default()) {
        dict.set_item(report.engine.name(), report.reason)?;
    }
    Ok(dict)
}

/// What the ring of a new loop is counted for as locked memory, and the limit of locked memory, which all processes of
/// the user share: bytes. `None`: no limit applies to rings here.
#[pyfunction]
pub fn ring_memory() -> (usize, Option<u64>) {
    let limit = locked::limit();
    (Config::default().locked_memory(limit), limit)
}

/// The engines' names, in order of preference.
pub fn engine_names() -> Vec<&'static str> {
    Engine::ALL.iter().map(|engine| engine.name()).collect()
}
