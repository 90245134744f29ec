//! The datagram transport: one datagram socket (UDP or Unix), connected or not, and its protocol.
//!
//! The kernel only ever has a poll of it in flight. When the socket is readable, the transport receives by non-blocking calls
//! into memory that all transports of the loop share (`inbox.rs`). A datagram is sent at once, or queued until the socket is
//! writable. So an idle endpoint pins no buffer, a pause or a close never races with data on its way, and the loop may go on in
//! another thread. `receive.rs` and `send.rs` tell the life of the data; here are the state and the end.

mod inbox;
mod receive;
mod send;

use std::collections::VecDeque;
use std::os::fd::RawFd;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use self::send::Datagram;
use super::base::{Life, Living, Transport, wake};
use super::in_flight::InFlight;
use super::over_socket::OverSocket;
use crate::asyncio::transport::phase::Phase;
use crate::py::address::Address;
use crate::py::address::Ends;
use crate::py::call::{current_context, one_after_other};
use crate::py::cell::LoopCell;
use crate::py::instance::instance;
use crate::py::make::{Int, Text, name, pair};
use crate::reactor::scheduler::Scheduler;

/// An address as the kernel has it, and as Python shows it.
struct Known {
    address: Address,
    shown: Py<PyAny>,
}

pub(super) struct Datagrams {
    life: Life,
    // Receiving.
    reading: InFlight,
    paused: bool,
    /// Wake-ups to go until more than one datagram is looked for.
    quiet: u8,
    sender: Option<Known>,
    // Sending.
    queue: VecDeque<Datagram>,
    queued: usize,
    room: Room,
}

/// What the queue waits for, after which the transport tries to send again.
enum Room {
    Unasked,
    /// The socket is to be writable.
    Polled(InFlight),
    /// The socket said that it was writable, and took nothing: a timer.
    Retried,
}

impl Living for Datagrams {
    fn life(&self) -> &Life {
        &self.life
    }

    fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    fn queued(&self) -> usize {
        self.queued
    }
}

/// A transport of one datagram socket, as `asyncio.DatagramTransport`.
#[pyclass(frozen, dict, weakref, module = "proact._core")]
pub struct DatagramTransport {
    scheduler: Py<Scheduler>,
    context: Py<PyAny>,
    ends: Ends,
    family: i32,
    /// The socket is connected, and sends to its peer.
    connected: bool,
    /// The only address that may be sent to.
    fixed: Option<Known>,
    /// What asyncio adds to a queued datagram's size, in bytes: since Python 3.13, which also sends empty datagrams.
    header: usize,
    state: LoopCell<Datagrams>,
}

impl Transport for DatagramTransport {
    type State = Datagrams;

    fn scheduler(&self) -> &Py<Scheduler> {
        &self.scheduler
    }

    fn context(&self) -> &Py<PyAny> {
        &self.context
    }

    fn state(&self) -> &LoopCell<Datagrams> {
        &self.state
    }

    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        let reason = error.map(|error| error.into_value(this.py()));
        let queue = {
            let mut io = this.get().scheduler.get().io.get()?;
            let mut state = this.get().state.get()?;
            if state.life.phase >= Phase::Lost {
                return Ok(());
            }
            state.life.phase = Phase::Lost;
            state.life.error = reason;
            state.queued = 0;
            state.reading.stop(&mut io);
            if let Room::Polled(poll) = &mut state.room {
                poll.stop(&mut io);
            }
            std::mem::take(&mut state.queue)
        };
        drop(queue);
        // Later, because the caller does not expect that its protocol is called within this call.
        Self::soon(this, name!("_finish"))
    }
}

impl OverSocket for DatagramTransport {
    fn ends(&self) -> &Ends {
        &self.ends
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
        let ends = Ends::of(&mut *scheduler.get().io.get()?.driver, fd);
        let transport = DatagramTransport {
            scheduler: scheduler.clone().unbind(),
            context: current_context(py)?,
            connected: ends.peer().is_some(),
            ends,
            family,
            fixed,
            header: if py.version_info() >= (3, 13) { 8 } else { 0 },
            state: LoopCell::new(Datagrams {
                life: Life::new(protocol, extra),
                reading: InFlight::Nothing,
                paused: false,
                quiet: 0,
                sender: None,
                queue: VecDeque::new(),
                queued: 0,
                room: Room::Unasked,
            }),
        };
        let transport = instance(py, transport)?;
        {
            // Not earlier: a transport that could not be made leaves the fd to the caller.
            let mut state = transport.get().state.get()?;
            state.life.fd = fd;
            state.life.file = Some(sock.unbind());
        }
        scheduler.get().io.get()?.own(fd, true);
        Ok(transport.unbind())
    }

    /// Calls `connection_made`, begins to receive, and tells `waiter`.
    #[pyo3(name = "_start", signature = (waiter = None))]
    fn start(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let outcome = Self::open(slf);
        Self::read(slf)?;
        wake(waiter)?;
        outcome
    }

    #[pyo3(signature = (name, default = None))]
    fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::extra_info(slf, name, default)
    }

    fn set_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        self.replace_protocol(protocol)
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.protocol(py)
    }

    fn is_closing(&self) -> PyResult<bool> {
        self.is_ending()
    }

    fn get_write_buffer_size(&self) -> PyResult<Int> {
        Ok(Int::new(self.state.get()?.queued))
    }

    /// The water marks, `(low, high)`, in bytes.
    fn get_write_buffer_limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let limits = self.state.get()?.life.flow.limits();
        pair(py, limits)
    }

    #[pyo3(signature = (high = None, low = None))]
    fn set_write_buffer_limits(slf: &Bound<'_, Self>, high: Option<i64>, low: Option<i64>) -> PyResult<()> {
        let _claim = slf.get().scheduler.get().claim()?;
        Self::set_limits(slf, high, low)
    }

    /// Ends the transport once everything queued is sent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("close"))? else {
            return Ok(());
        };
        {
            let mut io = slf.get().scheduler.get().io.get()?;
            let mut state = slf.get().state.get()?;
            if state.life.phase >= Phase::Closing {
                return Ok(());
            }
            if !state.queue.is_empty() {
                state.life.phase = Phase::Closing;
                state.reading.stop(&mut io);
                return Ok(());
            }
        }
        Self::lose(slf, None)
    }

    /// Ends the transport now; what is queued is dropped.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = slf.get().scheduler.get();
        let Some(_claim) = scheduler.claim_or_defer(slf.as_any(), name!("abort"))? else {
            return Ok(());
        };
        Self::lose(slf, None)
    }

    /// Once no poll is in flight: calls `connection_lost`, closes the fd and lets go of everything.
    #[pyo3(name = "_finish")]
    fn finish(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (fd, error, protocol) = {
            let mut state = this.state.get()?;
            let polls = !state.reading.is_nothing() || matches!(state.room, Room::Polled(_));
            if state.life.phase != Phase::Lost || polls {
                return Ok(());
            }
            state.life.phase = Phase::Closed;
            let life = &mut state.life;
            (life.take_fd(), life.error.take(), life.protocol.take())
        };
        let lost = Self::tell_lost(slf, protocol, error);
        one_after_other(py, lost, this.give_up(py, fd))
    }

    /// What `isinstance` sees: asyncio's `DatagramTransport`, from which a native class can't inherit.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.scheduler.get().hooks()?.datagram_class.bind(py).clone())
    }

    fn __repr__(&self) -> PyResult<Text<String>> {
        let state = self.state.get()?;
        let phase = state.life.phase.name();
        let reading = if state.paused { "paused" } else { "polling" };
        Ok(Text(format!(
            "<DatagramTransport {phase} fd={} read={reading} write=<bufsize={}>>",
            state.life.fd, state.queued
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.context)?;
        if let Some(state) = self.state.look() {
            state.life.traverse(&visit)?;
        }
        Ok(())
    }
}

impl Drop for DatagramTransport {
    fn drop(&mut self) {
        self.dropped();
    }
}
