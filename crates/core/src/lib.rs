//! `proact._core`: the native half of proact. Begin with `scheduler.rs` (one turn of the loop), then
//! `transport/stream.rs` (a connection) or `operation.rs` (an awaitable operation). `ring.rs` is a ring without a loop.

mod address;
mod buffer;
mod call;
mod cell;
mod ending;
mod factories;
mod fds;
mod files;
mod handle;
mod io;
mod lab;
mod make;
mod operation;
mod readers;
mod ready;
mod ring;
mod scheduler;
mod slots;
mod sockets;
mod soon;
mod spare;
mod stats;
mod timers;
mod transport;

use pyo3::prelude::*;

// Free threading is not audited yet: importing proact there turns the GIL on.
#[pymodule(gil_used = true)]
mod _core {
    #[pymodule_export]
    use crate::handle::{Handle, TimerHandle};
    #[pymodule_export]
    use crate::lab::{Probe, SyscallCounter, bare_server, echo_load, install_probe};
    #[pymodule_export]
    use crate::operation::Operation;
    #[pymodule_export]
    use crate::ring::{Completion, Ring};
    #[pymodule_export]
    use crate::scheduler::Scheduler;
    #[pymodule_export]
    use crate::stats::{probe_engines, ring_memory};
    #[pymodule_export]
    use crate::transport::datagram::DatagramTransport;
    #[pymodule_export]
    use crate::transport::file::FileSending;
    #[pymodule_export]
    use crate::transport::listener::Listener;
    #[pymodule_export]
    use crate::transport::pipe::{PipeTransport, ReadPipeTransport, WritePipeTransport};
    #[pymodule_export]
    use crate::transport::stream::StreamTransport;
    #[pymodule_export]
    use crate::transport::tls::TLSTransport;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::ending::install();
        crate::handle::install(module.py());
        crate::scheduler::unmade::install(module.py());
        crate::soon::install(module.py())?;
        module.add(
            "ENGINES",
            pyo3::types::PyTuple::new(module.py(), crate::stats::engine_names())?,
        )
    }
}
