//! A short load, as the tests of it run it.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use proact_lab::{LoadError, LoadReport, LoadSpec, Target, load};

pub fn short(target: impl Into<Target>, connections: usize, size: usize) -> LoadSpec {
    let mut spec = LoadSpec::new(target);
    spec.connections = connections;
    spec.size = size;
    spec.warmup = Duration::from_millis(20);
    spec.duration = Duration::from_millis(200);
    spec
}

pub fn run(spec: &LoadSpec) -> Result<LoadReport, LoadError> {
    load::run(spec, &AtomicU64::new(0), &AtomicBool::new(false))
}
