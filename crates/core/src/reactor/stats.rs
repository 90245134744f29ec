//! Statistics and features of the loop and its engine, as dictionaries.

use proact_driver::{Config, Engine, engine_report, locked};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::py::make::{Float, Int, Text, dict, list, name, tuple};
use crate::reactor::scheduler::Scheduler;

#[pymethods]
impl Scheduler {
    /// Counters of the engine since the loop was made.
    #[pyo3(name = "_stats")]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let _claim = self.claim()?;
        // Copy first: no cell is held while dictionaries are made.
        let (stats, pool, slots, spin) = {
            let io = self.io.get()?;
            let slots = io.slots.targets().count();
            let spin = io.spin.as_ref().map(|spin| (spin.limit(), spin.counts()));
            (
                io.driver.stats().clone(),
                io.driver.pool(),
                slots,
                spin.unwrap_or_default(),
            )
        };
        let threads = dict(py)?;
        threads.set_item(name!("threads"), Int::new(pool.threads))?;
        threads.set_item(name!("busy"), Int::new(pool.busy))?;
        threads.set_item(name!("queued"), Int::new(pool.queued))?;
        threads.set_item(name!("lost"), Int::new(pool.lost))?;
        threads.set_item(name!("limit"), Int::new(pool.limit))?;
        let (limit, counts) = spin;
        let spins = dict(py)?;
        spins.set_item(name!("limit"), Float(limit.as_secs_f64()))?;
        spins.set_item(name!("spins"), Int::new(counts.spins))?;
        spins.set_item(name!("paid"), Int::new(counts.paid))?;
        spins.set_item(name!("skipped"), Int::new(counts.skipped))?;
        spins.set_item(name!("seconds"), Float(counts.time.as_secs_f64()))?;
        let readers = self.readers.lock().len();
        let all = dict(py)?;
        let (submitted, completed) = (dict(py)?, dict(py)?);
        for (name, count) in stats.submitted() {
            submitted.set_item(Text(name), Int::new(count))?;
        }
        for (name, count) in stats.completed() {
            completed.set_item(Text(name), Int::new(count))?;
        }
        all.set_item(name!("submitted"), submitted)?;
        all.set_item(name!("completed"), completed)?;
        all.set_item(name!("in_flight"), Int::new(stats.in_flight))?;
        all.set_item(name!("in_flight_max"), Int::new(stats.in_flight_max))?;
        all.set_item(name!("syscalls"), Int::new(stats.syscalls))?;
        all.set_item(name!("wait_seconds"), Float(stats.wait_ns as f64 / 1e9))?;
        all.set_item(name!("buffers"), Int::new(stats.buffers))?;
        all.set_item(name!("buffer_exhaustions"), Int::new(stats.buffer_exhaustions))?;
        all.set_item(name!("overflows"), Int::new(stats.overflows))?;
        all.set_item(name!("rebuilds"), Int::new(stats.rebuilds))?;
        let fallbacks = stats.fallbacks.iter();
        let fallbacks = fallbacks.map(|text| Ok(Text(text).into_pyobject(py)?.into_any()));
        all.set_item(
            name!("fallbacks"),
            list(py, &fallbacks.collect::<PyResult<Vec<_>>>()?)?,
        )?;
        all.set_item(name!("pool"), threads)?;
        all.set_item(name!("spin"), spins)?;
        all.set_item(name!("pooled"), Int::new(stats.pooled))?;
        all.set_item(name!("readers"), Int::new(readers))?;
        let (scheduled, cancelled) = self.scheduled(py);
        all.set_item(name!("handles"), Int::new(scheduled))?;
        all.set_item(name!("cancelled"), Int::new(cancelled))?;
        all.set_item(name!("slots"), Int::new(slots))?;
        Ok(all)
    }

    /// The engine's features and opcodes, by name; empty for engines without a ring.
    #[pyo3(name = "_features")]
    fn features<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let features = self.io.get()?.driver.features().cloned();
        let (flags, opcodes) = (dict(py)?, dict(py)?);
        if let Some(features) = features {
            for (name, has) in features.flags {
                flags.set_item(Text(name), has)?;
            }
            for (name, allowed) in features.opcodes {
                opcodes.set_item(Text(name), allowed)?;
            }
        }
        tuple(py, &[flags.into_any(), opcodes.into_any()])
    }
}

/// Engines by name, in order of preference: `None` if the engine can be used here, else the reason why not.
#[pyfunction]
pub fn probe_engines(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let all = dict(py)?;
    for report in engine_report(&Config::default()) {
        all.set_item(Text(report.engine.name()), report.reason.map(Text))?;
    }
    Ok(all)
}

/// The locked memory that the ring of a new loop counts for, and the limit of locked memory, which all processes of a user
/// share; both in bytes. `None`: no limit applies to rings here.
#[pyfunction]
pub fn ring_memory(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
    let limit = locked::limit();
    let ring = Int::new(Config::default().locked_memory(limit)).into_pyobject(py)?;
    let limit = limit.map(Int::new).into_pyobject(py)?;
    tuple(py, &[ring.into_any(), limit.into_any()])
}

/// The engines' names, in order of preference.
pub fn engine_names() -> Vec<&'static str> {
    Engine::ALL.iter().map(|engine| engine.name()).collect()
}
