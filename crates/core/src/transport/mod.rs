//! Transports: what stands between a protocol and the engine.
//!
//! `stream.rs` is the transport and its state; the life of its data is told in `receive.rs`, `send.rs`, `file.rs` and
//! `closing.rs`. `datagram.rs` is the one of datagram sockets, `pipe.rs` is for what is no socket, and `tls/` stands
//! between a transport and the application's protocol.

mod closing;
pub mod datagram;
mod file;
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

use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;

/// Tells of a transport that nobody closed; `which` says more of it.
fn warn_unclosed(py: Python<'_>, which: &str) {
    let message = std::ffi::CString::new(format!("unclosed transport {which}")).unwrap_or_default();
    if let Err(error) = PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &message, 1) {
        error.write_unraisable(py, None);
    }
}
