//! `proact._core`: the native half of proact, in layers: `py` (objects and calls of Python) ← `reactor` (the engine, the turn,
//! operations) ← `asyncio` (transports, `sock_*`, readers). Begin with `reactor/scheduler.rs` (one turn of the loop), then
//! `asyncio/transport/stream.rs` (a connection) or `reactor/operation.rs` (an awaitable operation). `gevent` is
//! a loop for gevent, `ring.rs` a ring without a loop, `lab.rs` the laboratory.

mod asyncio;
mod gevent;
mod green;
mod lab;
mod py;
mod reactor;
mod ring;

use pyo3::prelude::*;

// docs/decisions/0012-free-threading.md says what this relies on.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::asyncio::files::aligned::Aligned;
    #[pymodule_export]
    use crate::asyncio::files::has_writer;
    #[pymodule_export]
    use crate::asyncio::files::lines::Lines;
    #[pymodule_export]
    use crate::asyncio::streams::{Draining, Nothing, Reading, StreamState, WriterState, install_streams};
    #[pymodule_export]
    use crate::asyncio::transport::clients::Clients;
    #[pymodule_export]
    use crate::asyncio::transport::datagram::DatagramTransport;
    #[pymodule_export]
    use crate::asyncio::transport::file::sending::FileSending;
    #[pymodule_export]
    use crate::asyncio::transport::listener::Listener;
    #[pymodule_export]
    use crate::asyncio::transport::pipe::{PipeTransport, ReadPipeTransport, WritePipeTransport};
    #[pymodule_export]
    use crate::asyncio::transport::stream::StreamTransport;
    #[pymodule_export]
    use crate::asyncio::transport::tls::TLSTransport;
    #[pymodule_export]
    use crate::gevent::callback::GeventCallback;
    #[pymodule_export]
    use crate::gevent::hub_loop::GeventLoop;
    #[pymodule_export]
    use crate::gevent::hub_wait::install_gevent_wait;
    #[pymodule_export]
    use crate::gevent::kinds::{GeventAsync, GeventIo, GeventTimer};
    #[pymodule_export]
    use crate::gevent::signals::GeventSignal;
    #[pymodule_export]
    use crate::gevent::sockets::install_gevent_calls;
    #[pymodule_export]
    use crate::gevent::waiting::{GeventWaiter, configure_gevent};
    #[pymodule_export]
    use crate::gevent::watcher::GeventWatcher;
    #[pymodule_export]
    use crate::green::calls::install_green_calls;
    #[pymodule_export]
    use crate::green::sockets::{green_close, green_connect, green_when};
    #[pymodule_export]
    use crate::green::waits::green_waits;
    #[pymodule_export]
    use crate::green::wire::Wire;
    #[pymodule_export]
    use crate::lab::{Probe, SyscallCounter, bare_server, echo_load, install_probe};
    #[pymodule_export]
    use crate::reactor::handle::{Handle, TimerHandle};
    #[pymodule_export]
    use crate::reactor::hub::{Hub, configure_green};
    #[pymodule_export]
    use crate::reactor::operation::Operation;
    #[pymodule_export]
    use crate::reactor::parking::{Parking, green_sleep};
    #[pymodule_export]
    use crate::reactor::scheduler::Scheduler;
    #[pymodule_export]
    use crate::reactor::stats::{probe_engines, ring_memory};
    #[pymodule_export]
    use crate::reactor::threadsafe::ThreadSafeHandle;
    #[pymodule_export]
    use crate::ring::{Completion, Ring};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::py::ending::install();
        crate::asyncio::files::lines::install(module.py());
        crate::asyncio::transport::tls::install(module.py());
        #[cfg(not(Py_GIL_DISABLED))]
        crate::reactor::uncollected::install(module.py());
        #[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
        {
            use crate::py::shared_class::count_no_references;
            count_no_references::<Handle>(module.py());
            count_no_references::<TimerHandle>(module.py());
            count_no_references::<Operation>(module.py());
        }
        crate::reactor::scheduler::unmade::install(module.py());
        crate::reactor::soon::install(module.py())?;
        crate::asyncio::event_loop::install(module.py())?;
        crate::asyncio::transport::send::install(module.py())?;
        module.add(
            "ENGINES",
            pyo3::types::PyTuple::new(module.py(), crate::reactor::stats::engine_names())?,
        )
    }
}
