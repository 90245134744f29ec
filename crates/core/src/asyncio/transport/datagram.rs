//! The datagram transport: one datagram socket (UDP or Unix), connected or not, and its protocol.
//!
//! Nothing of it is ever in the kernel's hands but a poll: a socket that is readable is received from, by non-blocking
//! calls into memory that all transports of the loop share (`inbox.rs`), and a datagram is sent at once or queued until
//! the socket is writable. So an idle endpoint pins no buffer, pausing and closing lose no race against the data, and the
//! loop can go on in another thread. `receive.rs` and `send.rs` tell the life of the data; here are state and end.

mod inbox;
mod receive;
mod send;

use std::collections::VecDeque;
use std::os::fd::RawFd;

use proact_driver::Token;
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use self::send::Datagram;
use super::flow::{Flow, HIGH_WATER};
use super::protocol::Callee;
use crate::asyncio::transport::phase::Phase;
use crate::asyncio::transport::release;
use crate::asyncio::transport::report;
use crate::py::address::Address;
use crate::py::call::{Reason, current_context, one_after_other, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::instance::instance;
use crate::py::make::{Int, Name, Text, dict, name, pair};
use crate::reactor::io::Io;
use crate::reactor::scheduler::Scheduler;

/// An address as the kernel has it, and as Python shows it.
struct Known {
    address: Address,
    shown: Py<PyAny>,
}

/// `Closing` sends what is queued; from `Lost` on `connection_lost` is due, once no poll is in flight.
struct Datagrams {
    fd: RawFd,
    phase: Phase,
    protocol: Option<Py<PyAny>>,
    socket: Option<Py<PyAny>>,
    /// Why the transport ends.
    error: Reason,
    // Receiving.
    reading: Option<Token>,
    /// The poll in flight was asked to end.
    stopping: bool,
    paused: bool,
    /// Wake-ups to go until more than one datagram is looked for.
    quiet: u8,
    sender: Option<Known>,
    // Sending.
    queue: VecDeque<Datagram>,
    queued: usize,
    writing: Option<Token>,
    retrying: bool,
    flow: Flow,
    futile: u32,
}

/// A transport of one datagram socket, as `asyncio.DatagramTransport`.
#[pyclass(frozen, dict, weakref, module = "proact._core")]
pub struct DatagramTransport {
    scheduler: Py<Scheduler>,
    context: Py<PyAny>,
    extra: Py<PyDict>,
    family: i32,
    local: Option<Address>,
    /// Where a connected socket sends to.
    peer: Option<Address>,
    /// The only address that may be sent to.
    fixed: Option<Known>,
    /// What asyncio adds to a queued datagram's size. From Python 3.13 on, when it also began to send empty ones.
    header: usize,
    state: LoopCell<Datagrams>,
}

impl DatagramTransport {
    /// The fd, for a message.
    fn owned(this: &Bound<'_, Self>) -> Option<RawFd> {
        this.get().state.get().ok().map(|state| state.fd)
    }

    fn callee<'py>(&self, py: Python<'py>) -> PyResult<Option<Callee<'py>>> {
        let state = self.state.get()?;
        Ok(state.protocol.as_ref().map(|protocol| Callee {
            protocol: protocol.bind(py).clone(),
            context: self.context.clone_ref(py),
        }))
    }

    /// What a method of the protocol raised: reported, and nothing else changes.
    fn protocol_failed(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        report::protocol_failed(&this.get().scheduler, this.as_any(), &error, message)
    }

    /// An error that ends the transport.
    fn fatal(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        let told = report::transport_failed(&this.get().scheduler, this.as_any(), &error, message);
        Self::lose(this, Some(error))?;
        told
    }

    /// Schedules a method of this transport for the next turn.
    fn soon(this: &Bound<'_, Self>, method: &'static Name) -> PyResult<()> {
        this.get().scheduler.get().method_soon(this.as_any(), method)
    }

    /// Ends the transport now; what is queued is dropped.
    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let reason = error.map(|error| error.into_value(this.py()));
        let queue = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            if state.phase >= Phase::Lost {
                return Ok(());
            }
            state.phase = Phase::Lost;
            state.error = reason;
            state.queued = 0;
            state.stop_reading(&mut io);
            if let Some(token) = state.writing {
                io.cancel(token);
            }
            std::mem::take(&mut state.queue)
        };
        drop(queue);
        // Never from here: the caller does not expect to be called back.
        Self::soon(this, name!("_finish"))
    }

    fn py_socket<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let state = self.state.get()?;
        Ok(state.socket.as_ref().map(|socket| socket.bind(py).clone()))
    }

    /// Takes the fd away from the Python socket; whether it was still there, and so is ours to close.
    fn release_socket(&self, py: Python<'_>) -> PyResult<bool> {
        let socket = self.state.get()?.socket.take();
        match socket {
            Some(socket) => Ok(socket.call_method0(py, name!("detach"))?.extract::<RawFd>(py)? >= 0),
            None => Ok(false),
        }
    }
}

impl Datagrams {
    fn stop_reading(&mut self, io: &mut Io) {
        if let Some(token) = self.reading
            && !self.stopping
        {
            self.stopping = true;
            io.cancel(token);
        }
    }
}

#[pymethods]
impl DatagramTransport {
    /// A transport over a datagram socket, which it takes over; `address` is the only one that it may send to.
    #[new]
    #[pyo3(signature = (scheduler, sock, protocol, address = None, extra = None))]
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        sock: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        address: Option<Bound<'_, PyAny>>,
        extra: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Py<DatagramTransport>> {
        let py = scheduler.py();
        let fd: RawFd = sock.call_method0(name!("fileno"))?.extract()?;
        let family: i32 = sock.getattr(name!("family"))?.extract()?;
        scheduler.get().check_not_a_transport(py, fd)?;
        let fixed = match address {
            Some(shown) if shown.is_truthy()? => Some(Known {
                address: Address::parse(family, &shown)?,
                shown: shown.unbind(),
            }),
            _ => None,
        };
        let (local, peer) = {
            let driver = &mut *scheduler.get().io.get()?.driver;
            (Address::of_socket(driver, fd), Address::of_peer(driver, fd))
        };
        let transport = DatagramTransport {
            scheduler: scheduler.clone().unbind(),
            context: current_context(py)?,
            extra: extra.map_or_else(|| dict(py), Ok)?.unbind(),
            family,
            local,
            peer,
            fixed,
            header: if py.version_info() >= (3, 13) { 8 } else { 0 },
            state: LoopCell::new(Datagrams {
                fd: -1,
                phase: Phase::New,
                protocol: Some(protocol.unbind()),
                socket: None,
                error: None,
                reading: None,
                stopping: false,
                paused: false,
                quiet: 0,
                sender: None,
                queue: VecDeque::new(),
                queued: 0,
                writing: None,
                retrying: false,
                flow: Flow::new(HIGH_WATER),
                futile: 0,
            }),
        };
        let transport = instance(py, transport)?;
        {
            // Only now: what could not be made leaves the fd whose it was.
            let mut state = transport.get().state.get()?;
            state.fd = fd;
            state.socket = Some(sock.unbind());
        }
        scheduler.get().io.get()?.own(fd, true);
        Ok(transport.unbind())
    }

    /// Calls `connection_made`, begins to receive, and tells `waiter`.
    #[pyo3(name = "_start", signature = (waiter = None))]
    fn start(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let py = slf.py();
        {
            let mut state = slf.get().state.get()?;
            if state.phase == Phase::New {
                state.phase = Phase::Open;
            }
        }
        let mut outcome = Ok(());
        if let Some(callee) = slf.get().callee(py)?
            && let Err(error) = callee.call1(name!("connection_made"), slf.as_any())
        {
            let message = "Exception in callback protocol.connection_made";
            outcome = Self::protocol_failed(slf, error, message);
        }
        Self::read(slf)?;
        if let Some(waiter) = waiter
            && !waiter.call_method0(name!("done"))?.is_truthy()?
        {
            waiter.call_method1(name!("set_result"), (py.None(),))?;
        }
        outcome
    }

    #[pyo3(signature = (name, default = None))]
    fn get_extra_info<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(value) = self.extra.bind(py).get_item(Text(name))? {
            return Ok(Some(value));
        }
        let shown = |address: &Option<Address>| address.as_ref().map(|it| it.to_python(py)).transpose();
        match name {
            "peername" => shown(&self.peer),
            "sockname" => shown(&self.local),
            "socket" => {
                let Some(socket) = self.py_socket(py)? else {
                    return Ok(default);
                };
                let module = py.import(name!("asyncio.trsock"))?;
                let view = module.call_method1(name!("TransportSocket"), (socket,))?;
                self.extra.bind(py).set_item(name!("socket"), &view)?;
                Ok(Some(view))
            }
            _ => Ok(default),
        }
    }

    fn set_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let old = self.state.get()?.protocol.replace(protocol.unbind());
        drop(old);
        Ok(())
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state.get()?;
        Ok(state.protocol.as_ref().map(|protocol| protocol.clone_ref(py)))
    }

    fn is_closing(&self) -> PyResult<bool> {
        Ok(self.state.get()?.phase >= Phase::Closing)
    }

    fn get_write_buffer_size(&self) -> PyResult<Int> {
        Ok(Int::new(self.state.get()?.queued))
    }

    /// The water marks, `(low, high)`, in bytes.
    fn get_write_buffer_limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = self.state.get()?.flow.limits();
        pair(py, limits)
    }

    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        slf.get().state.get()?.flow.set_limits(high, low, HIGH_WATER)?;
        Self::maybe_pause_protocol(slf)
    }

    /// Ends the transport once everything queued is sent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().scheduler.get().defers(slf.as_any(), name!("close"))? {
            return Ok(());
        }
        {
            let mut io = slf.get().scheduler.get().io.get()?;
            let mut state = slf.get().state.get()?;
            if state.phase >= Phase::Closing {
                return Ok(());
            }
            if !state.queue.is_empty() {
                state.phase = Phase::Closing;
                state.stop_reading(&mut io);
                return Ok(());
            }
        }
        Self::lose(slf, None)
    }

    /// Ends the transport now; what is queued is dropped.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().scheduler.get().defers(slf.as_any(), name!("abort"))? {
            return Ok(());
        }
        Self::lose(slf, None)
    }

    /// Once no poll is in flight: calls `connection_lost`, closes the fd and lets go of everything.
    #[pyo3(name = "_finish")]
    fn finish(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (fd, error, protocol) = {
            let mut state = this.state.get()?;
            if state.phase != Phase::Lost || state.reading.is_some() || state.writing.is_some() {
                return Ok(());
            }
            state.phase = Phase::Closed;
            let fd = std::mem::replace(&mut state.fd, -1);
            (fd, state.error.take(), state.protocol.take())
        };
        let outcome = match protocol {
            Some(protocol) => {
                let callee = Callee {
                    protocol: protocol.into_bound(py),
                    context: this.context.clone_ref(py),
                };
                let reason = error.into_pyobject(py)?;
                callee.call1(name!("connection_lost"), &reason).map(drop)
            }
            None => Ok(()),
        };
        let message = "Exception in callback protocol.connection_lost";
        let lost = outcome.or_else(|error| Self::protocol_failed(slf, error, message));
        let given_up = release::give_up(py, this.scheduler.get(), fd, this.release_socket(py));
        one_after_other(py, lost, given_up)
    }

    /// What `isinstance` sees: asyncio's `DatagramTransport`, from which a native class can't inherit.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.scheduler.get().hooks()?.datagram_class.bind(py).clone())
    }

    fn __repr__(&self) -> PyResult<Text<String>> {
        let state = self.state.get()?;
        let phase = state.phase.name();
        let reading = if state.paused { "paused" } else { "polling" };
        Ok(Text(format!(
            "<DatagramTransport {phase} fd={} read={reading} write=<bufsize={}>>",
            state.fd, state.queued
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.context)?;
        visit.call(&self.extra)?;
        if let Some(state) = self.state.look() {
            visit.call(&state.protocol)?;
            visit.call(&state.socket)?;
            visit.call(&state.error)?;
        }
        Ok(())
    }
}

impl Drop for DatagramTransport {
    /// A transport that nobody closed: no poll of it is in flight, or its slot would keep it alive.
    fn drop(&mut self) {
        let Ok(mut state) = self.state.get() else { return };
        let fd = std::mem::replace(&mut state.fd, -1);
        drop(state);
        if fd >= 0 {
            release::abandoned(self.scheduler.get(), fd, |py| self.release_socket(py));
        }
    }
}
