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

use super::flow::{Flow, HIGH_WATER};
use super::protocol::Callee;
use super::receiving::Receiving;
use super::sending::Sending;
use crate::asyncio::transport::phase::Phase;
use crate::asyncio::transport::release;
use crate::asyncio::transport::report;
use crate::py::address::Ends;
use crate::py::call::{Reason, current_context, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::instance::instance;
use crate::py::make::{Int, Name, Text, dict, name, pair, py_error};
use crate::reactor::scheduler::Scheduler;

pub(super) struct Stream {
    pub fd: RawFd,
    pub phase: Phase,
    pub protocol: Option<Py<PyAny>>,
    pub buffered: bool,
    pub receiving: Receiving,
    pub sending: Sending,
    pub flow: Flow,
    /// Writes since the connection was lost.
    pub futile: u32,
    /// Why the connection is lost.
    pub error: Reason,
    // What the program may ask for; `extra` is made for those who have something to put there.
    extra: Option<Py<PyDict>>,
    socket: Option<Py<PyAny>>,
    pub server: Option<Py<PyAny>>,
}

impl Stream {
    /// Whether `connection_lost` may be called: the transport is lost, or closing and everything is sent; and no op uses the
    /// fd any more.
    pub fn is_over(&self) -> bool {
        let ends = match self.phase {
            Phase::Lost => true,
            Phase::Closing => self.sending.file.is_none(),
            Phase::New | Phase::Open | Phase::Closed => false,
        };
        ends && self.receiving.op.is_nothing() && self.sending.is_idle()
    }
}

/// A transport of one connected stream socket, as `asyncio.Transport`. With a `__dict__`: programs hang things on transports.
#[pyclass(frozen, dict, weakref, module = "proact._core")]
pub struct StreamTransport {
    pub(super) scheduler: Py<Scheduler>,
    pub(super) context: Py<PyAny>,
    ends: Ends,
    pub(super) state: LoopCell<Stream>,
}

impl StreamTransport {
    /// A transport over a connected socket, which it takes over.
    ///
    /// # Errors
    /// What the server says that counts its connections. The fd then stays the caller's.
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
        let state = Stream {
            fd: -1,
            phase: Phase::New,
            protocol: Some(protocol.unbind()),
            buffered,
            receiving: Receiving::new(buffered),
            sending: Sending::default(),
            flow: Flow::new(HIGH_WATER),
            futile: 0,
            error: None,
            extra: extra.map(Bound::unbind),
            socket: None,
            server: server.map(Bound::unbind),
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
            // Only now: what could not be made leaves the fd whose it was.
            let mut state = transport.get().state.get()?;
            state.fd = fd;
            state.socket = socket;
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
            // The fd stays whose it was.
            let socket = {
                let mut state = transport.get().state.get()?;
                state.fd = -1;
                state.phase = Phase::Closed;
                state.socket.take()
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

    /// The protocol and the context to call it in; `None` once it was told of the loss.
    pub(super) fn callee<'py>(&self, py: Python<'py>) -> PyResult<Option<(Callee<'py>, bool)>> {
        let state = self.state.get()?;
        let Some(protocol) = &state.protocol else {
            return Ok(None);
        };
        let callee = Callee {
            protocol: protocol.bind(py).clone(),
            context: self.context.clone_ref(py),
        };
        Ok(Some((callee, state.buffered)))
    }

    /// An exception of the protocol's, or an error of the socket's, that ends the connection: reported, then closed.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` pass through.
    pub(super) fn fatal(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        let told = report::transport_failed(&this.get().scheduler, this.as_any(), &error, message);
        // Whatever an exception handler raises: the connection ends.
        Self::lose(this, Some(error))?;
        told
    }

    /// The fd, for a message.
    pub(super) fn owned(this: &Bound<'_, Self>) -> Option<RawFd> {
        this.get().state.get().ok().map(|state| state.fd)
    }

    pub(super) fn py_socket<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let transport = this.get();
        let (fd, known) = {
            let state = transport.state.get()?;
            (state.fd, state.socket.as_ref().map(|socket| socket.clone_ref(py)))
        };
        if let Some(socket) = known {
            return Ok(Some(socket.into_bound(py)));
        }
        if fd < 0 {
            return Ok(None);
        }
        // Made only for those who ask; it shares the fd, which stays the transport's (see `release_socket`).
        let keywords = dict(py)?;
        keywords.set_item(name!("fileno"), Int::new(fd))?;
        let socket = py
            .import(name!("socket"))?
            .getattr(name!("socket"))?
            .call((), Some(&keywords))?;
        transport.state.get()?.socket = Some(socket.clone().unbind());
        Ok(Some(socket))
    }

    /// Takes the fd away from the Python socket that shares it; whether it was still there, and so is ours to close.
    pub(super) fn release_socket(&self, py: Python<'_>) -> PyResult<bool> {
        let socket = self.state.get()?.socket.take();
        match socket {
            Some(socket) => Ok(socket.call_method0(py, name!("detach"))?.extract::<RawFd>(py)? >= 0),
            None => Ok(true),
        }
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
        let py = slf.py();
        let this = slf.get();
        {
            let mut state = this.state.get()?;
            if state.phase == Phase::New {
                state.phase = Phase::Open;
            }
        }
        let mut outcome = Ok(());
        if let Some((callee, _)) = this.callee(py)? {
            let made = callee.call1(name!("connection_made"), slf.as_any());
            match made {
                Err(error) if stops_the_loop(py, &error) => outcome = Err(error),
                Err(error) => {
                    let message = "Exception in callback protocol.connection_made";
                    outcome = report::protocol_failed(&this.scheduler, slf.as_any(), &error, message);
                }
                Ok(_) => {}
            }
        }
        let Some(waiter) = waiter else {
            Self::receive(slf)?;
            return outcome;
        };
        if !waiter.call_method0(name!("done"))?.is_truthy()? {
            waiter.call_method1(name!("set_result"), (py.None(),))?;
        }
        // Whoever waits has the transport before the protocol has its first data.
        Self::soon(slf, name!("_begin_reading"))?;
        outcome
    }

    #[pyo3(name = "_begin_reading")]
    fn begin_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::receive(slf)
    }

    #[pyo3(signature = (name, default = None))]
    pub fn get_extra_info<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let extra = this.state.get()?.extra.as_ref().map(|extra| extra.clone_ref(py));
        if let Some(extra) = extra
            && let Some(value) = extra.bind(py).get_item(Text(name))?
        {
            return Ok(Some(value));
        }
        let value = match name {
            "peername" => this.ends.peer().map(|end| end.to_python(py)).transpose()?,
            "sockname" => this.ends.local().map(|end| end.to_python(py)).transpose()?,
            "socket" => match Self::py_socket(slf)? {
                Some(socket) => {
                    let view = py
                        .import(name!("asyncio.trsock"))?
                        .call_method1(name!("TransportSocket"), (socket,))?;
                    let made = dict(py)?.unbind();
                    let extra = {
                        let mut state = this.state.get()?;
                        state.extra.get_or_insert(made).clone_ref(py)
                    };
                    extra.bind(py).set_item(name!("socket"), &view)?;
                    Some(view)
                }
                None => None,
            },
            _ => None,
        };
        Ok(value.or(default))
    }

    fn set_protocol(&self, py: Python<'_>, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let buffered = self.scheduler.bind(py).get().is_buffered(&protocol)?;
        let old = {
            let mut io = self.scheduler.get().io.get()?;
            let mut state = self.state.get()?;
            state.buffered = buffered;
            if buffered {
                state.receiving.fill_buffers(&mut io);
            }
            state.protocol.replace(protocol.unbind())
        };
        drop(old);
        Ok(())
    }

    fn get_protocol(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self
            .state
            .get()?
            .protocol
            .as_ref()
            .map(|protocol| protocol.clone_ref(py)))
    }

    fn is_closing(&self) -> PyResult<bool> {
        Ok(self.state.get()?.phase >= Phase::Closing)
    }

    fn is_reading(&self) -> PyResult<bool> {
        let state = self.state.get()?;
        Ok(state.phase < Phase::Closing && !state.receiving.is_paused())
    }

    fn get_write_buffer_size(&self) -> PyResult<Int> {
        Ok(Int::new(self.state.get()?.sending.out.len()))
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
        let phase = state.phase.name();
        let reading = if state.receiving.is_paused() {
            "paused"
        } else {
            "polling"
        };
        Ok(Text(format!(
            "<StreamTransport {phase} fd={} read={reading} write=<bufsize={}>>",
            state.fd,
            state.sending.out.len()
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.context)?;
        if let Some(state) = self.state.look() {
            for object in [&state.protocol, &state.socket, &state.server]
                .into_iter()
                .flatten()
            {
                visit.call(object)?;
            }
            visit.call(&state.extra)?;
            visit.call(&state.error)?;
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

    /// Schedules a method of this transport for the next turn.
    pub(super) fn soon(this: &Bound<'_, Self>, method: &'static Name) -> PyResult<()> {
        // Not the transport's own context, which those methods enter themselves.
        this.get().scheduler.get().method_soon(this.as_any(), method)
    }
}

impl Drop for StreamTransport {
    /// A transport that nobody closed: no op of it is in flight, or its slot would keep it alive.
    fn drop(&mut self) {
        let Ok(mut state) = self.state.get() else { return };
        let fd = std::mem::replace(&mut state.fd, -1);
        drop(state);
        if fd >= 0 {
            release::abandoned(self.scheduler.get(), fd, |py| self.release_socket(py));
        }
    }
}
