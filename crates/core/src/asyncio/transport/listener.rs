//! A listening socket that is accepted from: one multishot accept, a protocol and a transport for each connection.

use std::os::fd::RawFd;

use proact_driver::{Call, Completion, Op, Token, ops};
use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::stream::StreamTransport;
use crate::py::call::{copy_context, current_context, exception, in_context, stops_the_loop};
use crate::py::cell::LoopCell;
use crate::py::errno::{io_error, os_error};
use crate::py::make::{Float, Int, name};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::{Completes, Target};

/// Seconds until the listener tries again after an accept failed (as long as asyncio waits when resources are short).
const RETRY_DELAY: f64 = 1.0;

#[derive(Default)]
struct State {
    accepting: Option<Token>,
    closed: bool,
}

/// Accepts connections of one socket. With `adopt`, each new fd goes to it; else to a protocol of `factory`.
#[pyclass(frozen, weakref, module = "proact._core")]
pub struct Listener {
    scheduler: Py<Scheduler>,
    socket: Py<PyAny>,
    fd: RawFd,
    factory: Py<PyAny>,
    server: Option<Py<PyAny>>,
    adopt: Option<Py<PyAny>>,
    is_internet: bool,
    context: Py<PyAny>,
    state: LoopCell<State>,
}

static ACCEPTS: Completes<Listener> =
    Completes::<Listener>::new(|listener, arrived| Listener::accepted(listener, &arrived.completion))
        .that_calls_the_program();

#[pymethods]
impl Listener {
    #[new]
    #[pyo3(signature = (scheduler, sock, factory, server = None, adopt = None))]
    fn new(
        scheduler: &Bound<'_, Scheduler>,
        sock: Bound<'_, PyAny>,
        factory: Bound<'_, PyAny>,
        server: Option<Bound<'_, PyAny>>,
        adopt: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Listener> {
        let fd: RawFd = sock.call_method0(name!("fileno"))?.extract()?;
        let family: i32 = sock.getattr(name!("family"))?.extract()?;
        Ok(Listener {
            scheduler: scheduler.clone().unbind(),
            socket: sock.unbind(),
            fd,
            factory: factory.unbind(),
            server: server.map(Bound::unbind),
            adopt: adopt.map(Bound::unbind),
            is_internet: matches!(family, libc::AF_INET | libc::AF_INET6),
            context: current_context(scheduler.py())?,
            state: LoopCell::new(State::default()),
        })
    }

    /// Begins to accept, or begins again after an error.
    fn start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        let _claim = this.scheduler.get().claim()?;
        let refused = {
            let mut io = this.scheduler.get().io.get()?;
            let mut state = this.state.get()?;
            if state.closed || state.accepting.is_some() {
                return Ok(());
            }
            let target = Target::new(slf.clone().unbind(), &ACCEPTS);
            // SAFETY: an accept points at no memory.
            match unsafe { io.submit(Op::AcceptMulti(ops::AcceptMulti { fd: this.fd }), target) } {
                Sent::Pending(token) => {
                    state.accepting = Some(token);
                    return Ok(());
                }
                Sent::Ready(error) => error,
            }
        };
        if is_hopeless(refused) {
            return Err(os_error(refused));
        }
        Self::failed(slf, refused)
    }

    /// Stops accepting. The kernel has let go of the socket when this returns, so that closing it frees its port.
    fn stop(&self) -> PyResult<()> {
        let _claim = self.scheduler.get().claim()?;
        let mut io = self.scheduler.get().io.get()?;
        let mut state = self.state.get()?;
        state.closed = true;
        if let Some(token) = state.accepting {
            io.cancel(token);
            io.driver.flush().map_err(io_error)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        visit.call(&self.socket)?;
        visit.call(&self.factory)?;
        visit.call(&self.context)?;
        for object in [&self.server, &self.adopt].into_iter().flatten() {
            visit.call(object)?;
        }
        Ok(())
    }
}

/// Closes a connection just accepted that nobody was given. On Linux its fd is gone whatever the call answers.
fn close(scheduler: &Scheduler, fd: RawFd) {
    // SAFETY: a close points at no memory.
    let _ = unsafe { scheduler.attempt(&Op::Close(ops::Close { fd })) };
}

fn is_exhaustion(error: i32) -> bool {
    matches!(-error, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
}

/// Whether the error says that the fd is not, or no longer, a listening socket, which will never accept.
fn is_hopeless(error: i32) -> bool {
    matches!(
        -error,
        libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::ERANGE
    )
}

impl Listener {
    /// A completion of the accept.
    pub fn accepted(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let py = this.py();
        let listener = this.get();
        let closed = {
            let mut state = listener.state.get()?;
            // This comes with an error only: the driver arms an accept again that the kernel ended with a connection.
            if completion.is_terminal() {
                state.accepting = None;
            }
            state.closed
        };
        let result = completion.result;
        if result >= 0 && closed {
            close(listener.scheduler.get(), result);
        } else if result >= 0 {
            listener.connected(py, result)?;
        } else if !closed && result != -libc::ECANCELED {
            Self::failed(this, result)?;
        }
        Ok(())
    }

    /// An accept was refused. The program is told, and the listener tries again later: a server that has run out of fds or
    /// memory, or may not accept for a while, goes on serving after that. It gives up only if the fd is no listening socket.
    fn failed(this: &Bound<'_, Self>, error: i32) -> PyResult<()> {
        let py = this.py();
        let listener = this.get();
        let scheduler = listener.scheduler.bind(py);
        if !is_hopeless(error) {
            let start = this.getattr(name!("start"))?;
            scheduler.call_method1(name!("call_later"), (Float(RETRY_DELAY), start))?;
        }
        let raised = exception(py, &os_error(error));
        let failed = scheduler.get().hooks()?.accept_failed.bind(py);
        failed
            .call1((scheduler, raised, &listener.socket, is_exhaustion(error)))
            .map(drop)
    }

    /// A connection: a protocol and a transport for it.
    fn connected(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        let scheduler = self.scheduler.bind(py);
        // A copy for each connection: what one factory sets, the next does not see.
        let outcome = in_context(py, &copy_context(py, &self.context)?, || {
            if let Some(adopt) = &self.adopt {
                return adopt.call1(py, (Int::new(fd), &self.factory)).map(drop);
            }
            if self.is_internet {
                // Set on every accepted socket: a connection that was established before `listen()` returned does not
                // inherit it.
                let _ = scheduler.get().call(Call::NoDelay { fd });
            }
            let protocol = match self.factory.bind(py).call0() {
                Ok(protocol) => protocol,
                Err(error) => {
                    close(scheduler.get(), fd);
                    return Err(error);
                }
            };
            let server = self.server.as_ref().map(|server| server.bind(py).clone());
            let transport = match StreamTransport::create(scheduler, fd, None, protocol, None, server) {
                Ok(transport) => transport,
                Err(error) => {
                    close(scheduler.get(), fd);
                    return Err(error);
                }
            };
            StreamTransport::start(transport.bind(py), None)
        });
        match outcome {
            Err(error) if !stops_the_loop(py, &error) => {
                let failed = scheduler.get().hooks()?.connection_failed.bind(py);
                failed.call1((scheduler, exception(py, &error))).map(drop)
            }
            outcome => outcome,
        }
    }
}
