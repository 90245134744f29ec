//! The stream transport: one connected socket (TCP or Unix) and its protocol.
//!
//! Owns the fd from the first op to the close. Its state is behind a cell that is never held across a call into Python:
//! each method takes what it needs, lets go, and then calls.

use std::os::fd::RawFd;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::base::{Life, Living, Transport, wake};
use super::clients::Clients;
use super::over_socket::OverSocket;
use super::protocol::Callee;
use super::receiving::Receiving;
use super::sending::Sending;
use crate::asyncio::transport::phase::Phase;
use crate::py::address::Ends;
use crate::py::call::current_context;
use crate::py::cell::LoopCell;
use crate::py::instance::instance;
use crate::py::make::{Int, Name, Text, name, pair, py_error};
use crate::reactor::scheduler::Scheduler;

/// What a transport has that leaves its loop (`leaving.rs`).
pub(super) struct Leaving {
    /// Called once with `(fd, protocol, extra, kept, ended, eof_written, paused)`, or with None for a transport that ends instead.
    pub told: Py<PyAny>,
    /// The program wants reading to be paused.
    pub paused: bool,
}

pub(super) struct Stream {
    pub life: Life,
    /// The protocol is a BufferedProtocol.
    pub buffered: bool,
    pub receiving: Receiving,
    pub sending: Sending,
    pub server: Option<Py<PyAny>>,
    /// Where the server counts it.
    clients: Option<Py<Clients>>,
    /// The connection is to go on in another loop.
    pub leaving: Option<Box<Leaving>>,
}

impl Living for Stream {
    fn life(&self) -> &Life {
        &self.life
    }

    fn life_mut(&mut self) -> &mut Life {
        &mut self.life
    }

    fn queued(&self) -> usize {
        self.sending.out.len()
    }
}

impl Stream {
    /// Whether `connection_lost` may be called: the transport is lost, or closing and everything is sent; and no op uses the
    /// fd any more.
    pub fn is_over(&self) -> bool {
        let ends = match self.life.phase {
            Phase::Lost => true,
            Phase::Closing => self.sending.file.is_none(),
            Phase::New | Phase::Open | Phase::Closed => false,
        };
        ends && self.receiving.op.is_nothing() && self.sending.is_idle()
    }
}

/// A transport of one connected stream socket, as `asyncio.Transport`. It has a `__dict__`, because programs put attributes on
/// transports.
#[pyclass(frozen, dict, weakref, module = "proact._core")]
pub struct StreamTransport {
    pub(super) scheduler: Py<Scheduler>,
    pub(super) context: Py<PyAny>,
    ends: Ends,
    pub(super) state: LoopCell<Stream>,
}

impl StreamTransport {
    /// Whether it is open, and has not told its protocol to pause writing.
    pub fn takes_more(&self) -> PyResult<bool> {
        let state = self.state.get()?;
        let life = state.life();
        Ok(life.phase == Phase::Open && !life.flow.paused)
    }

    /// A transport over a connected socket, which it takes over.
    ///
    /// # Errors
    /// What the server raises when it counts the connection. The fd then still belongs to the caller.
    pub fn create(
        scheduler: &Bound<'_, Scheduler>,
        fd: RawFd,
        socket: Option<Py<PyAny>>,
        protocol: Bound<'_, PyAny>,
        extra: Option<Bound<'_, PyDict>>,
        server: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<StreamTransport>> {
        let py = scheduler.py();
        let buffered = scheduler.get().is_buffered(&protocol)?;
        let bulk = buffered || !scheduler.get().io.get()?.driver.acts_between_waits();
        let state = Stream {
            life: Life::new(protocol, extra),
            buffered,
            receiving: Receiving::new(bulk),
            sending: Sending::default(),
            server: server.map(Bound::unbind),
            clients: None,
            leaving: None,
        };
        let ends = Ends::of(&mut *scheduler.get().io.get()?.driver, fd);
        let transport = StreamTransport {
            scheduler: scheduler.clone().unbind(),
            context: current_context(py)?,
            ends,
            state: LoopCell::new(state),
        };
        let transport = instance(py, transport)?;
        {
            // Not earlier: a transport that could not be made leaves the fd to the caller.
            let mut state = transport.get().state.get()?;
            state.life.fd = fd;
            state.life.file = socket;
        }
        let begun = match scheduler.get().io.get() {
            Ok(mut io) => {
                io.own(fd, true);
                Ok(())
            }
            Err(error) => Err(error),
        };
        let begun = begun.and_then(|()| transport.get().attach(&transport, name!("_attach")));
        if let Err(error) = begun {
            // The fd still belongs to the caller.
            let socket = {
                let mut state = transport.get().state.get()?;
                state.life.fd = -1;
                state.life.phase = Phase::Closed;
                state.life.file.take()
            };
            drop(socket);
            scheduler.get().give_up_later(fd, false);
            return Err(error);
        }
        Ok(transport.unbind())
    }

    /// Tells the server, where there is one, that a connection came or went.
    pub(super) fn attach(&self, this: &Bound<'_, Self>, method: &'static Name) -> PyResult<()> {
        let py = this.py();
        let server = self
            .state
            .get()?
            .server
            .as_ref()
            .map(|server| server.clone_ref(py));
        let Some(server) = server else { return Ok(()) };
        if self.scheduler.get().server_takes_transport(py)? {
            server.call_method1(py, method, (this,))?;
        } else {
            server.call_method0(py, method)?;
        }
        Ok(())
    }

    /// Notes where it is counted, and returns where it was.
    pub(super) fn counted_by(&self, clients: Option<Py<Clients>>) -> PyResult<Option<Py<Clients>>> {
        Ok(std::mem::replace(&mut self.state.get()?.clients, clients))
    }

    /// As `callee`, and whether it is a BufferedProtocol.
    #[inline]
    pub(super) fn receiver<'py>(&self, py: Python<'py>, state: &Stream) -> Option<(Callee<'py>, bool)> {
        let protocol = state.life.protocol.as_ref()?.bind(py).clone();
        Some((self.calls(protocol), state.buffered))
    }
}

impl Transport for StreamTransport {
    type State = Stream;

    fn scheduler(&self) -> &Py<Scheduler> {
        &self.scheduler
    }

    fn context(&self) -> &Py<PyAny> {
        &self.context
    }

    fn state(&self) -> &LoopCell<Stream> {
        &self.state
    }

    fn lose(this: &Bound<'_, Self>, error: Option<PyErr>) -> PyResult<()> {
        Self::end_now(this, error)
    }
}

impl OverSocket for StreamTransport {
    fn ends(&self) -> &Ends {
        &self.ends
    }
}

#[pymethods]
impl StreamTransport {
    /// A transport over a connected socket, which it takes over.
    #[new]
    #[pyo3(signature = (scheduler, sock, protocol, extra = None, server = None))]
    fn py_new(
        scheduler: &Bound<'_, Scheduler>,
        sock: Bound<'_, PyAny>,
        protocol: Bound<'_, PyAny>,
        extra: Option<Bound<'_, PyDict>>,
        server: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<StreamTransport>> {
        let fd = sock.call_method0(name!("fileno"))?.extract()?;
        StreamTransport::create(scheduler, fd, Some(sock.unbind()), protocol, extra, server)
    }

    /// Calls `connection_made`, begins to read, and tells `waiter`.
    #[pyo3(name = "_start", signature = (waiter = None))]
    pub fn start(slf: &Bound<'_, Self>, waiter: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let outcome = Self::open(slf);
        if waiter.is_none() {
            Self::begin_reading(slf)?;
            return outcome;
        }
        wake(waiter)?;
        // Later, so that the waiting task has the transport before the protocol gets its first data.
        Self::soon(slf, name!("_begin_reading"))?;
        outcome
    }

    #[pyo3(name = "_begin_reading")]
    fn begin_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::deliver_kept(slf)
    }

    #[pyo3(signature = (name, default = None))]
    pub fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::extra_info(slf, name, default)
    }

    fn set_protocol(&self, py: Python<'_>, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let buffered = self.scheduler.bind(py).get().is_buffered(&protocol)?;
        let _claim = self.scheduler.get().claim()?;
        let old = {
            let mut io = self.scheduler.get().io.get()?;
            let mut state = self.state.get()?;
            state.buffered = buffered;
            if buffered {
                state.receiving.fill_buffers(&mut io);
            }
            state.life.protocol.replace(protocol.unbind())
        };
        drop(old);
        Ok(())
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.protocol(py)
    }

    fn is_closing(&self) -> PyResult<bool> {
        self.is_ending()
    }

    fn is_reading(&self) -> PyResult<bool> {
        let state = self.state.get()?;
        Ok(state.life.phase < Phase::Closing && !state.receiving.is_paused())
    }

    fn get_write_buffer_size(&self) -> PyResult<Int> {
        Ok(Int::new(self.state.get()?.sending.out.len()))
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

    fn can_write_eof(&self) -> bool {
        true
    }

    /// `start_tls` may be used over this transport.
    #[classattr]
    fn _start_tls_compatible() -> bool {
        true
    }

    /// What `isinstance` sees: asyncio's `Transport`, from which a native class can't inherit.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let hooks = slf.get().scheduler.get().hooks()?;
        Ok(hooks.stream_class.bind(slf.py()).clone())
    }

    fn __repr__(&self) -> PyResult<Text<String>> {
        let state = self.state.get()?;
        let phase = state.life.phase.name();
        let reading = if state.receiving.is_paused() {
            "paused"
        } else {
            "polling"
        };
        Ok(Text(format!(
            "<StreamTransport {phase} fd={} read={reading} write=<bufsize={}>>",
            state.life.fd,
            state.sending.out.len()
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.context)?;
        if let Some(state) = self.state.look() {
            state.life.traverse(&visit)?;
            visit.call(&state.server)?;
            visit.call(&state.clients)?;
            if let Some(leaving) = &state.leaving {
                visit.call(&leaving.told)?;
            }
            if let Some(file) = &state.sending.file {
                visit.call(&file.of)?;
            }
        }
        Ok(())
    }
}

impl StreamTransport {
    pub(super) fn check_writable(&self) -> PyResult<()> {
        let state = self.state.get()?;
        if state.sending.eof {
            return Err(py_error::<PyRuntimeError>(
                "Cannot call write() after write_eof()",
            ));
        }
        if state.sending.file.is_some() {
            return Err(py_error::<PyRuntimeError>(
                "unable to write; sendfile is in progress",
            ));
        }
        Ok(())
    }
}

impl Drop for StreamTransport {
    fn drop(&mut self) {
        // Nobody else can reach the state, so it is free.
        if let Ok(Some(clients)) = self.counted_by(None) {
            clients.get().forget(std::ptr::from_ref(self) as usize);
        }
        self.dropped();
    }
}
