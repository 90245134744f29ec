//! The TLS transport: to the transport below it a protocol, to the application's protocol a transport.
//!
//! The states and the transitions follow asyncio's `sslproto`. The transport below is most often a `StreamTransport`, which is then
//! called without a detour through Python. It may be any other (`start_tls`), TLS included. Here are the object and its handshake;
//! `session.rs` wraps Python's `ssl` and `records.rs` counts what comes for it; the rest is in `receive.rs`, `send.rs` and `closing.rs`.

mod closing;
mod lower;
mod receive;
mod records;
mod send;
mod session;

use std::collections::VecDeque;

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyConnectionAbortedError, PyConnectionResetError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use self::lower::Lower;
use self::session::Session;
use crate::asyncio::transport::base::adopt;
use crate::asyncio::transport::flow::Flow;
use crate::asyncio::transport::protocol;
use crate::asyncio::transport::release;
use crate::asyncio::transport::report;
use crate::py::call::{exception, method1, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::ending::finalise;
use crate::py::instance::instance;
use crate::py::make::{Float, Name, Text, name, py_error};
use crate::reactor::scheduler::Scheduler;

/// ```text
///        connection_made         done          close, or the stream below ends        all is encrypted
///   New ────────────────> Handshake ────> Wrapped ──────────────────────────> Flushing ──────────────> Shutdown
///    │                        │ failed        │ abort, error                      │                        │
///    └──> Closed <────────────┴───────────────┴───────────────────────────────────┴────────────────────────┘
///                                                       connection_lost
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Handshake,
    Wrapped,
    /// What was written still goes out; nothing more is accepted.
    Flushing,
    /// Our close_notify is sent, or due.
    Shutdown,
    Closed,
}

/// Whether the transport below takes what is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Takes,
    Full,
    /// It is to be closed when it has taken what is encrypted.
    FullThenClosed,
}

/// What the application's protocol was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Made,
    Ended,
    Lost,
}

struct State {
    phase: Phase,
    told: Told,
    /// The program knows that it closes: it has called `close`, or the session has ended.
    closing: bool,
    protocol: Option<Py<PyAny>>,
    buffered: bool,
    lower: Option<Lower>,
    waiter: Option<Py<PyAny>>,
    /// Ends the handshake, and later the shutdown, if they take too long.
    timer: Option<Py<PyAny>>,
    /// When the handshake began (ns of the loop's clock); only debug mode asks.
    handshake_began: Option<u64>,
    // Receiving.
    paused: bool,
    /// How many encrypted bytes may wait until the transport below is paused.
    reading: Flow,
    ended: bool,
    // Sending.
    backlog: VecDeque<Py<PyBytes>>,
    /// Bytes of the first chunk that are encrypted already.
    offset: usize,
    backlog_len: usize,
    /// Bytes written since the session was last drained.
    undrained: usize,
    below: Below,
    writing: Flow,
    /// Writes since the connection was lost.
    futile: u32,
}

impl State {
    fn is_closing(&self) -> bool {
        self.closing || self.phase == Phase::Closed
    }
}

// asyncio's water marks, in bytes.
const READ_HIGH: usize = 256 * 1024;
const WRITE_HIGH: usize = 512 * 1024;

/// A TLS transport over another transport, as `asyncio.Transport`.
#[pyclass(frozen, dict, weakref, module = "proact._core")]
pub struct TLSTransport {
    scheduler: Py<Scheduler>,
    session: Session,
    extra: Py<PyDict>,
    /// In seconds, as the program gave them.
    timeouts: (Py<PyAny>, Py<PyAny>),
    state: LoopCell<State>,
}

impl TLSTransport {
    fn phase(&self) -> PyResult<Phase> {
        Ok(self.state.get()?.phase)
    }

    fn lower(&self, py: Python<'_>) -> PyResult<Option<Lower>> {
        Ok(self.state.get()?.lower.as_ref().map(|lower| lower.clone_ref(py)))
    }

    /// Keeps the connection's addresses, which may be asked for after the transport below is gone: a peer that answers
    /// at once and closes can be gone before the task that made the connection has run.
    fn remember_ends(&self, py: Python<'_>, lower: Option<&Lower>) -> PyResult<()> {
        let Some(lower) = lower else { return Ok(()) };
        let extra = self.extra.bind(py);
        for name in ["peername", "sockname"] {
            if !extra.contains(Text(name))?
                && let Some(address) = lower.address(py, name)?
            {
                extra.set_item(Text(name), address)?;
            }
        }
        Ok(())
    }

    fn protocol<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self
            .state
            .get()?
            .protocol
            .as_ref()
            .map(|protocol| protocol.bind(py).clone()))
    }

    /// Has a method of this transport called `delay` seconds from now.
    fn later(this: &Bound<'_, Self>, delay: &Py<PyAny>, method: &'static Name) -> PyResult<Py<PyAny>> {
        let scheduler = this.get().scheduler.bind(this.py());
        let timer = scheduler.call_method1(name!("call_later"), (delay, this.getattr(method)?))?;
        Ok(timer.unbind())
    }

    fn cancel_timer(&self, py: Python<'_>) -> PyResult<()> {
        let timer = self.state.get()?.timer.take();
        match timer {
            Some(timer) => timer.call_method0(py, name!("cancel")).map(drop),
            None => Ok(()),
        }
    }

    /// Wakes the task that waits for the handshake.
    fn wake(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        let waiter = self.state.get()?.waiter.take();
        let Some(waiter) = waiter else { return Ok(()) };
        if waiter.call_method0(py, name!("done"))?.is_truthy(py)? {
            return Ok(());
        }
        let told = match error {
            Some(error) => waiter.call_method1(py, name!("set_exception"), (exception(py, error),)),
            None => waiter.call_method1(py, name!("set_result"), (py.None(),)),
        };
        told.map(drop)
    }

    /// An error that ends the connection: closed at once, and reported.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` pass through.
    fn fatal(this: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        if let Some(lower) = this.get().lower(py)? {
            lower.force_close(py, Some(&error))?;
        }
        report::transport_failed(&this.get().scheduler, this.as_any(), &error, message)
    }

    fn handshake(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        match this.get().session.handshake(py) {
            Ok(()) => Self::handshake_done(this),
            Err(error) if session::wants_more(py, &error)? => Self::drain(this),
            Err(error) if session::is_ssl_error(py, &error)? => Self::handshake_failed(this, error),
            Err(error) => Err(error),
        }
    }

    fn handshake_done(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let transport = this.get();
        transport.cancel_timer(py)?;
        let object = transport.session.object.bind(py);
        let certificate = match object.call_method0(name!("getpeercert")) {
            Ok(certificate) => certificate,
            Err(error) => return Self::handshake_failed(this, error),
        };
        let began = transport.state.get()?.handshake_began.take();
        if let Some(began) = began {
            let took = this.get().scheduler.get().now().saturating_sub(began) as f64 / 1e9;
            let scheduler = transport.scheduler.bind(py);
            let hook = scheduler.get().hooks()?.handshake_took.bind(py);
            hook.call1((scheduler, this, Float(took)))?;
        }
        let extra = transport.extra.bind(py);
        extra.set_item(name!("peercert"), certificate)?;
        extra.set_item(name!("cipher"), object.call_method0(name!("cipher"))?)?;
        let compression = object.call_method0(name!("compression"))?;
        transport.session.handshake_done(py, !compression.is_none())?;
        extra.set_item(name!("compression"), compression)?;
        extra.set_item(name!("ssl_object"), object)?;
        let first = {
            let mut state = transport.state.get()?;
            state.phase = Phase::Wrapped;
            let first = state.told == Told::Nothing;
            if first {
                state.told = Told::Made;
            }
            first
        };
        let told = match transport.protocol(py)? {
            Some(protocol) if first => {
                adopt(transport.scheduler.get(), &protocol)?;
                method1(&protocol, name!("connection_made"), this.as_any()).map(drop)
            }
            _ => Ok(()),
        };
        match told {
            Ok(()) => {
                transport.wake(py, None)?;
                Self::read(this)
            }
            // The connection goes on in the next run of the loop.
            Err(error) if stops_the_loop(py, &error) => {
                transport.wake(py, None)?;
                Self::resume_soon(this).and(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    fn handshake_failed(this: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let py = this.py();
        this.get().state.get()?.phase = Phase::Closed;
        this.get().cancel_timer(py)?;
        let message = if session::is_certificate_error(py, &error)? {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        let cause = error.clone_ref(py);
        Self::fatal(this, error, message)?;
        this.get().wake(py, Some(&cause))
    }
}

#[pymethods]
impl TLSTransport {
    /// The transport of a session (`ssl.SSLObject`) between two `ssl.MemoryBIO`s. The handshake begins once it is given
    /// the transport below (`connection_made`), and `waiter` is told of its end. Timeouts in seconds. `writing_paused`: the
    /// transport below is full, and has told the protocol. `received` holds what the peer has already sent.
    #[new]
    #[pyo3(signature = (
        scheduler, protocol, session, waiter, extra, timeouts, call_connection_made = true, writing_paused = false,
        received = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's, by name")]
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        protocol: Bound<'_, PyAny>,
        session: (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>),
        waiter: Option<Bound<'_, PyAny>>,
        extra: Bound<'_, PyDict>,
        timeouts: (Py<PyAny>, Py<PyAny>),
        call_connection_made: bool,
        writing_paused: bool,
        received: Option<Bound<'_, PyBytes>>,
    ) -> PyResult<Py<TLSTransport>> {
        let buffered = scheduler.get().is_buffered(&protocol)?;
        let mut writing = Flow::new(WRITE_HIGH);
        writing.paused = writing_paused;
        let (object, incoming, outgoing) = session;
        let session = Session::new(object, incoming, outgoing)?;
        if let Some(received) = received {
            session.feed(scheduler.py(), received.as_any())?;
        }
        let transport = TLSTransport {
            scheduler: scheduler.clone().unbind(),
            session,
            extra: extra.unbind(),
            timeouts,
            state: LoopCell::new(State {
                phase: Phase::New,
                told: if call_connection_made {
                    Told::Nothing
                } else {
                    Told::Made
                },
                closing: false,
                protocol: Some(protocol.unbind()),
                buffered,
                lower: None,
                waiter: waiter.map(Bound::unbind),
                timer: None,
                handshake_began: None,
                paused: false,
                reading: Flow::new(READ_HIGH),
                ended: false,
                backlog: VecDeque::new(),
                offset: 0,
                backlog_len: 0,
                undrained: 0,
                below: if writing_paused { Below::Full } else { Below::Takes },
                writing,
                futile: 0,
            }),
        };
        instance(scheduler.py(), transport).map(Bound::unbind)
    }

    /// The transport below is there: the handshake begins.
    fn connection_made(slf: &Bound<'_, Self>, transport: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let lower = Lower::new(transport);
        let closed = {
            let mut state = this.state.get()?;
            let closed = state.phase == Phase::Closed;
            if !closed {
                state.lower = Some(lower.clone_ref(py));
                state.phase = Phase::Handshake;
            }
            closed
        };
        if closed {
            // The program closed the transport before the handshake began.
            return lower.force_close(py, None);
        }
        let timer = Self::later(slf, &this.timeouts.0, name!("_handshake_timed_out"))?;
        this.state.get()?.timer = Some(timer);
        if this.scheduler.get().is_debug() {
            this.state.get()?.handshake_began = Some(this.scheduler.get().now());
            let scheduler = this.scheduler.bind(py);
            let hook = scheduler.get().hooks()?.handshake_begins.bind(py);
            hook.call1((scheduler, slf))?;
        }
        Self::handshake(slf)
    }

    #[pyo3(name = "_handshake_timed_out")]
    fn handshake_timed_out(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().phase()? != Phase::Handshake {
            return Ok(());
        }
        let seconds = slf.get().timeouts.0.bind(slf.py()).str()?;
        let message =
            format!("SSL handshake is taking longer than {seconds} seconds: aborting the connection");
        Self::fatal(
            slf,
            py_error::<PyConnectionAbortedError>(message),
            "Fatal error on transport",
        )
    }

    #[pyo3(signature = (name, default = None))]
    fn get_extra_info<'py>(
        &self,
        py: Python<'py>,
        name: Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(value) = self.extra.bind(py).get_item(&name)? {
            return Ok(Some(value));
        }
        match self.lower(py)? {
            Some(lower) => {
                let below = lower.bind(py);
                below
                    .call_method1(name!("get_extra_info"), (name, default))
                    .map(Some)
            }
            None => Ok(default),
        }
    }

    fn set_protocol(&self, py: Python<'_>, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let buffered = self.scheduler.bind(py).get().is_buffered(&protocol)?;
        let _claim = self.scheduler.get().claim()?;
        let old = {
            let mut state = self.state.get()?;
            state.buffered = buffered;
            state.protocol.replace(protocol.unbind())
        };
        drop(old);
        Ok(())
    }

    fn get_protocol<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.protocol(py)
    }

    /// `start_tls` may be used over this transport.
    #[classattr]
    fn _start_tls_compatible() -> bool {
        true
    }

    /// A file has to be encrypted on its way: it is read and written.
    #[getter]
    fn _sendfile_compatible<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py()
            .import(name!("asyncio.constants"))?
            .getattr(name!("_SendfileMode"))?
            .getattr(name!("FALLBACK"))
    }

    /// What `isinstance` sees: asyncio's `Transport`, from which a native class can't inherit.
    #[getter(__class__)]
    fn class<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let hooks = slf.get().scheduler.get().hooks()?;
        Ok(hooks.tls_class.bind(slf.py()).clone())
    }

    fn __repr__(&self) -> PyResult<Text<String>> {
        let state = self.state.get()?;
        Ok(Text(format!(
            "<TLSTransport {} read={} write=<backlog={}>>",
            match state.phase {
                Phase::New => "new",
                Phase::Handshake => "handshake",
                Phase::Wrapped => "open",
                Phase::Flushing | Phase::Shutdown => "closing",
                Phase::Closed => "closed",
            },
            if state.paused { "paused" } else { "polling" },
            state.backlog_len
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.extra)?;
        visit.call(&self.timeouts.0)?;
        visit.call(&self.timeouts.1)?;
        self.session.traverse(visit)?;
        if let Some(state) = self.state.look() {
            for object in [&state.protocol, &state.waiter, &state.timer]
                .into_iter()
                .flatten()
            {
                visit.call(object)?;
            }
            if let Some(lower) = &state.lower {
                lower.traverse(visit)?;
            }
        }
        Ok(())
    }

    /// The transport below holds this one, and neither has a Python object's `__dict__` by which a cycle could be cut.
    fn __clear__(&self) {
        if let Some(mut state) = self.state.look() {
            let held = (state.lower.take(), state.protocol.take(), state.waiter.take());
            drop(state);
            drop(held);
        }
    }
}

impl Drop for TLSTransport {
    fn drop(&mut self) {
        let closing = self.state.get().map_or(true, |state| state.is_closing());
        if closing {
            return;
        }
        finalise(|py| release::warn_unclosed(py, "<TLSTransport>"));
    }
}

fn reset() -> PyErr {
    PyConnectionResetError::new_err(())
}

/// Has a transport below hand its bytes over without a call into Python.
pub fn install(py: Python<'_>) {
    protocol::install(&py.get_type::<TLSTransport>(), |tls, data| {
        // SAFETY: an object of this class.
        TLSTransport::received(unsafe { tls.cast_unchecked() }, data)
    });
}
