//! How connections become clients of a server, and end to be (`clients.rs`).

use pyo3::prelude::*;

use super::clients::Clients;
use super::stream::StreamTransport;
use crate::py::make::name;

/// Where a native transport is, within its object.
fn address(transport: &Bound<'_, StreamTransport>) -> usize {
    std::ptr::from_ref(transport.get()) as usize
}

#[pymethods]
impl Clients {
    #[new]
    fn new(others: Py<PyAny>) -> Clients {
        Clients::of_others(others)
    }

    fn add(slf: &Bound<'_, Self>, client: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(transport) = client.cast_exact::<StreamTransport>() else {
            let others = slf.get().others.bind(slf.py());
            return others.call_method1(name!("add"), (client,)).map(drop);
        };
        let before = transport.get().counted_by(Some(slf.clone().unbind()))?;
        if let Some(before) = before.filter(|before| !before.is(slf)) {
            before.get().forget(address(transport));
        }
        slf.get().insert(address(transport), transport.as_ptr() as usize);
        Ok(())
    }

    fn discard(&self, client: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(transport) = client.cast_exact::<StreamTransport>() else {
            let others = self.others.bind(client.py());
            return others.call_method1(name!("discard"), (client,)).map(drop);
        };
        if self.forget(address(transport)) {
            transport.get().counted_by(None)?;
        }
        Ok(())
    }

    fn __contains__(&self, client: &Bound<'_, PyAny>) -> PyResult<bool> {
        match client.cast_exact::<StreamTransport>() {
            Ok(transport) => Ok(self.has(address(transport))),
            Err(_) => self.others.bind(client.py()).contains(client),
        }
    }
}
