//! Writes into a connection that is lost.

use pyo3::prelude::*;

use crate::py::make::{Text, name};

/// So many futile writes are passed over in silence.
const FUTILE_WRITES: u32 = 5;

/// A write into a connection that is lost, after `before` others (asyncio counts the loss of a socket as one): a program that
/// goes on so is told in the log, as asyncio tells it.
pub fn futile_write(py: Python<'_>, before: u32, message: &'static str) -> PyResult<()> {
    if before < FUTILE_WRITES {
        return Ok(());
    }
    let logger = py.import(name!("asyncio.log"))?.getattr(name!("logger"))?;
    logger.call_method1(name!("warning"), (Text(message),)).map(drop)
}
