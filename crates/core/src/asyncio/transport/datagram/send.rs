//! How a datagram transport sends: at once, or, while the socket takes no more, from a queue once it is writable.

use std::os::fd::RawFd;

use proact_driver::{Completion, Op, ops, syscalls};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::Room;
use super::{DatagramTransport, Datagrams};
use crate::asyncio::transport::base::Transport;
use crate::asyncio::transport::in_flight::InFlight;
use crate::asyncio::transport::phase::Phase;
use crate::py::address::Address;
use crate::py::bytes::snapshot;
use crate::py::call::{exception, method1, stops_the_loop};
use crate::py::errno::os_error;
use crate::py::make::{Float, name, py_error};
use crate::reactor::io::Io;
use crate::reactor::target::{Completes, Target};

/// Seconds until the transport tries again to send to a socket that polls as writable and then takes nothing. An unconnected Unix
/// socket does this while the receiver's queue is full: no poll tells when there is room.
const RETRY: f64 = 0.001;

/// A datagram that waits for its turn.
pub(super) struct Datagram {
    data: Py<PyBytes>,
    /// `None`: to the peer of a connected socket.
    to: Option<Box<Address>>,
}

/// One attempt to send one datagram.
fn send(io: &mut Io, fd: RawFd, data: &[u8], to: Option<&Address>) -> i32 {
    let mut vector = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: zeros are a value of msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(to) = to {
        message.msg_name = (&raw const to.storage).cast_mut().cast();
        message.msg_namelen = to.len;
    }
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    let op = Op::SendMsg(ops::SendMsg {
        fd,
        msg: &raw const message,
        flags: 0,
    });
    // SAFETY: the call does not block and is over when it returns, and all that it points at is here.
    unsafe { io.driver.attempt(&op) }
}

static IS_WRITABLE: Completes<DatagramTransport> =
    Completes::<DatagramTransport>::new(|transport, arrived| {
        DatagramTransport::writable(transport, &arrived.completion)
    })
    .that_owns(DatagramTransport::owned);

impl Datagrams {
    /// Attempts to send the first datagram of the queue, and removes it unless it has to wait.
    fn send_first(&mut self, py: Python<'_>, io: &mut Io, header: usize) -> Option<(i32, Datagram)> {
        let first = self.queue.front()?;
        let data = first.data.bind(py).as_bytes();
        let (len, result) = (
            data.len() + header,
            send(io, self.life.fd, data, first.to.as_deref()),
        );
        if result == syscalls::AGAIN {
            return None;
        }
        self.queued -= len;
        self.queue.pop_front().map(|gone| (result, gone))
    }
}

impl DatagramTransport {
    /// Where a datagram for `addr` goes; `None` is the peer of a connected socket.
    fn destination(&self, addr: Option<&Bound<'_, PyAny>>, py: Python<'_>) -> PyResult<Option<Address>> {
        if self.connected {
            return Ok(None);
        }
        if let Some(fixed) = &self.fixed {
            return Ok(Some(fixed.address.clone()));
        }
        let Some(addr) = addr else {
            return Address::parse(self.family, py.None().bind(py)).map(Some);
        };
        {
            // A program that answers passes on the very object that came with the datagram: no need to parse it.
            let state = self.state.get()?;
            if let Some(sender) = state.sender.as_ref().filter(|known| known.shown.is(addr)) {
                return Ok(Some(sender.address.clone()));
            }
        }
        Address::resolve(self.family, addr).map(Some)
    }

    /// Sends what is queued, as far as the socket takes it. False: something is queued, and the socket took nothing.
    fn pump(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        let transport = this.get();
        let mut count = transport.state.get()?.queue.len();
        let mut went = count == 0;
        let mut outcome = Ok(());
        while count > 0 && outcome.is_ok() {
            count -= 1;
            let sent = {
                let mut io = transport.scheduler.get().io.get()?;
                transport.state.get()?.send_first(py, &mut io, transport.header)
            };
            let Some((result, _)) = sent else { break };
            went = true;
            outcome = if result < 0 {
                Self::error_received(this, result)
            } else {
                Self::maybe_resume_protocol(this)
            };
        }
        let lost = {
            let state = transport.state.get()?;
            state.queue.is_empty() && state.life.phase == Phase::Closing
        };
        if lost {
            Self::lose(this, None)?;
        }
        outcome.map(|()| went)
    }

    /// Watches for room, if there is something to send.
    fn wait_for_room(this: &Bound<'_, Self>) -> PyResult<()> {
        let refused = {
            let mut state = this.get().state.get()?;
            if state.queue.is_empty() || !matches!(state.room, Room::Unasked) {
                return Ok(());
            }
            let (fd, target) = (state.life.fd, Target::new(this.clone().unbind(), &IS_WRITABLE));
            let mut io = this.get().scheduler.get().io.get()?;
            let mut poll = InFlight::Nothing;
            let Some(error) = poll.poll(&mut io, fd, libc::POLLOUT, target) else {
                state.room = Room::Polled(poll);
                return Ok(());
            };
            error
        };
        let message = "Fatal write error on datagram transport";
        Self::fatal(this, os_error(refused), message)
    }

    /// The socket is writable, or has an error to tell.
    pub fn writable(this: &Bound<'_, Self>, completion: &Completion) -> PyResult<()> {
        let phase = {
            let mut state = this.get().state.get()?;
            state.room = Room::Unasked;
            state.life.phase
        };
        if phase == Phase::Lost {
            return Self::finish(this);
        }
        if completion.result < 0 {
            let message = "Fatal write error on datagram transport";
            return Self::fatal(this, os_error(completion.result), message);
        }
        Self::go_on(this)
    }

    fn go_on(this: &Bound<'_, Self>) -> PyResult<()> {
        let went = Self::pump(this);
        if let Ok(false) = went {
            return Self::retry_later(this);
        }
        // Also after an exception, so that what is left is sent.
        went.map(drop).and(Self::wait_for_room(this))
    }

    fn retry_later(this: &Bound<'_, Self>) -> PyResult<()> {
        this.get().state.get()?.room = Room::Retried;
        let retry = this.getattr(name!("_retry"))?;
        let scheduler = this.get().scheduler.bind(this.py());
        scheduler
            .call_method1(name!("call_later"), (Float(RETRY), retry))
            .map(drop)
    }

    /// A send failed within the program's call. The protocol is told in the current context, and what it raises goes to the caller.
    fn refused(this: &Bound<'_, Self>, error: PyErr) -> PyResult<()> {
        let py = this.py();
        if stops_the_loop(py, &error) {
            return Err(error);
        }
        if !error.is_instance_of::<PyOSError>(py) {
            return Self::fatal(this, error, "Fatal write error on datagram transport");
        }
        let Some(callee) = this.get().callee(py)? else {
            return Ok(());
        };
        let error = exception(py, &error);
        method1(&callee.protocol, name!("error_received"), error.bind(py)).map(drop)
    }
}

#[pymethods]
impl DatagramTransport {
    /// Sends a datagram, now or as soon as the socket takes it; never blocks.
    #[pyo3(signature = (data, addr = None))]
    fn sendto(
        slf: &Bound<'_, Self>,
        data: &Bound<'_, PyAny>,
        addr: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let data = snapshot(data)?;
        if data.as_bytes().is_empty() && this.header == 0 {
            return Ok(());
        }
        if let (Some(fixed), Some(addr)) = (&this.fixed, &addr)
            && !addr.eq(&fixed.shown)?
        {
            let message = format!("Invalid address: must be None or {}", fixed.shown.bind(py).str()?);
            return Err(py_error::<PyValueError>(message));
        }
        let _claim = this.scheduler.get().claim()?;
        let phase = this.state.get()?.life.phase;
        if phase == Phase::Closed || (phase == Phase::Lost && this.fixed.is_some()) {
            return this.warn_of_futile_write(py);
        }
        let to = match this.destination(addr.as_ref(), py) {
            Ok(to) => to,
            Err(error) => return Self::refused(slf, error),
        };
        let result = {
            let mut io = this.scheduler.get().io.get()?;
            let mut state = this.state.get()?;
            let result = if state.queue.is_empty() {
                send(&mut io, state.life.fd, data.as_bytes(), to.as_ref())
            } else {
                syscalls::AGAIN
            };
            if result == syscalls::AGAIN && phase < Phase::Lost {
                state.queued += data.as_bytes().len() + this.header;
                state.queue.push_back(Datagram {
                    data: data.unbind(),
                    to: to.map(Box::new),
                });
            }
            result
        };
        match result {
            0.. => Ok(()),
            syscalls::AGAIN => {
                Self::wait_for_room(slf)?;
                Self::maybe_pause_protocol(slf)
            }
            error => Self::refused(slf, os_error(error)),
        }
    }

    #[pyo3(name = "_retry")]
    fn retry(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().state.get()?.room = Room::Unasked;
        Self::go_on(slf)
    }
}
