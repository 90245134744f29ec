//! Writes into a connection that is lost.

use pyo3::prelude::*;

use crate::py::make::{Text, name};

/// asyncio's: a program that goes on writing into a lost connection is told in the log.
pub const FUTILE_WRITES: u32 = 5;

/// One more write into a lost connection: a program that goes on so is told in the log, as asyncio tells it.
pub fn futile_write(py: Python<'_>, count: u32) -> PyResult<()> {
    if count < FUTILE_WRITES {
        return Ok(());
    }
    let logger = py.import(name!("asyncio.log"))?.getattr(name!("logger"))?;
    logger
        .call_method1(name!("warning"), (Text("socket.send() raised exception."),))
        .map(drop)
}
