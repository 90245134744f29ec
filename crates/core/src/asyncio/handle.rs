//! The `repr` of handles, which is that of asyncio's.

use pyo3::prelude::*;

use crate::py::make::{Text, name};
use crate::reactor::handle::{Call, Handle};

impl Call {
    /// The callback as asyncio's messages show it.
    fn describe(&self, py: Python<'_>) -> String {
        let shown = py
            .import(name!("asyncio.format_helpers"))
            .and_then(|helpers| {
                helpers.call_method1(name!("_format_callback_source"), (&self.callback, &self.args))
            })
            .and_then(|shown| shown.extract());
        shown.unwrap_or_else(|_| "?".into())
    }
}

#[pymethods]
impl Handle {
    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Text<String>> {
        let name = slf.get_type().name()?;
        let this = slf.get();
        let state = match this.call(slf.py()) {
            Some(call) => call.describe(slf.py()),
            None if this.is_cancelled() => "cancelled".into(),
            None => "finished".into(),
        };
        Ok(Text(format!("<{name} {state}>")))
    }
}
