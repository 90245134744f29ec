//! What an operation does. On a socket it makes calls that do not block; on a file it is an op of the engine's.

use std::os::fd::RawFd;

use proact_driver::{Call, Driver, Op, ops, syscalls};
use pyo3::IntoPyObjectExt;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBlockingIOError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::address::Address;
use crate::py::buffer::Buffer;
use crate::py::bytes::copy_bytes;
use crate::py::descriptor::number;
use crate::py::errno::os_error;
use crate::py::make::{Int, name, py_error, py_os_error};
use crate::reactor::fds::Side;
use crate::reactor::file_work::FileWork;
use crate::reactor::scheduler::Scheduler;

/// What is being done.
pub enum Work {
    Receive {
        len: usize,
    },
    /// The buffer is exported only during the call.
    ReceiveInto {
        buffer: Py<PyAny>,
        /// How much the last call had room for.
        room: usize,
    },
    /// A Python function that raises `BlockingIOError` if the socket is not ready.
    Call {
        side: Side,
        attempt: Py<PyAny>,
    },
    /// Sends what is left of a buffer, which stays exported until the end.
    Send {
        buffer: Buffer,
        sent: usize,
    },
    Connect {
        address: Box<Address>,
        shown: Py<PyAny>,
        begun: bool,
    },
    File(FileWork),
}

impl Work {
    pub fn receive_into(buffer: Py<PyAny>) -> Work {
        Work::ReceiveInto { buffer, room: 0 }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Work::ReceiveInto { buffer: object, .. }
            | Work::Call { attempt: object, .. }
            | Work::Connect { shown: object, .. } => visit.call(object),
            Work::Receive { .. } | Work::Send { .. } | Work::File(_) => Ok(()),
        }
    }

    pub fn side(&self) -> Side {
        match self {
            Work::Receive { .. } | Work::ReceiveInto { .. } => Side::Read,
            Work::Call { side, .. } => *side,
            Work::Send { .. } | Work::Connect { .. } | Work::File(_) => Side::Write,
        }
    }

    /// Whether a receive has returned bytes, but less than it had room for.
    #[inline]
    pub fn is_short(&self, value: &Bound<'_, PyAny>) -> bool {
        let (received, room) = match self {
            Work::Receive { len } => {
                let bytes = value.cast_exact::<PyBytes>();
                (bytes.map_or(0, |bytes| bytes.as_bytes().len()), *len)
            }
            Work::ReceiveInto { room, .. } => (value.extract().unwrap_or(0), *room),
            _ => return false,
        };
        received > 0 && received < room
    }

    /// How many bytes a receive has returned.
    pub fn received(&self, value: &Bound<'_, PyAny>) -> Option<usize> {
        match self {
            Work::Receive { .. } => value.len().ok(),
            Work::ReceiveInto { .. } => value.extract().ok(),
            _ => None,
        }
    }
}

/// The fd of a socket on which an operation begins. Debug mode checks that the socket does not block. `green`: a socket of
/// `proact.green`, which never does, and is no TLS socket.
pub fn socket_fd(
    scheduler: &Bound<'_, Scheduler>,
    socket: &Bound<'_, PyAny>,
    green: bool,
) -> PyResult<RawFd> {
    let this = scheduler.get();
    this.check_closed()?;
    if !green {
        if this.is_debug() && !socket.call_method0(name!("gettimeout"))?.eq(0)? {
            return Err(py_error::<PyValueError>("the socket must be non-blocking"));
        }
        this.check_plain_socket(socket)?;
    }
    let fd = number(socket)?;
    let mut io = this.io.get()?;
    if io.is_owned(fd) {
        drop(io);
        this.check_not_a_transport(socket.py(), fd)?;
        io = this.io.get()?;
    }
    if !io.evict(fd, socket) {
        return Err(os_error(-libc::EBADF));
    }
    Ok(fd)
}

/// Sends what the socket takes at once. 0: nothing, or another send comes first.
pub fn send_now(scheduler: &Bound<'_, Scheduler>, fd: RawFd, bytes: &[u8]) -> PyResult<usize> {
    let sent = {
        let mut io = scheduler.get().io.get()?;
        if !io.fds.is_free(fd, Side::Write) {
            return Ok(0);
        }
        let (buf, len, flags) = (bytes.as_ptr(), bytes.len(), 0);
        // SAFETY: the memory is valid while the call lasts, which does not block.
        unsafe { io.driver.attempt(&Op::Send(ops::Send { fd, buf, len, flags })) }
    };
    match usize::try_from(sent) {
        Ok(sent) => Ok(sent),
        Err(_) if sent == syscalls::AGAIN => Ok(0),
        Err(_) => Err(os_error(sent)),
    }
}

/// One attempt at a receive into memory that is valid while it lasts.
fn recv(driver: &mut dyn Driver, fd: RawFd, buf: *mut u8, len: usize) -> i32 {
    let flags = 0;
    // SAFETY: as the callers below see to.
    unsafe { driver.attempt(&Op::Recv(ops::Recv { fd, buf, len, flags })) }
}

impl Work {
    /// Makes the call, which does not block. `None`: the socket is not ready.
    pub fn attempt(&mut self, scheduler: &Bound<'_, Scheduler>, fd: RawFd) -> PyResult<Option<Py<PyAny>>> {
        let py = scheduler.py();
        match self {
            Work::Receive { len: 0 } => Ok(Some(copy_bytes(py, b"")?.into_any().unbind())),
            Work::Receive { len } => {
                let received = scheduler.get().io.get()?.receive(py, fd, *len)?;
                match received {
                    Ok(bytes) => Ok(Some(bytes.into_any().unbind())),
                    Err(syscalls::AGAIN) => Ok(None),
                    Err(error) => Err(os_error(error)),
                }
            }
            Work::ReceiveInto { buffer, room } => {
                let buffer = Buffer::room(buffer.bind(py))?;
                let len = buffer.len();
                *room = len;
                let count = if len == 0 {
                    0
                } else {
                    recv(&mut *scheduler.get().io.get()?.driver, fd, buffer.ptr(), len)
                };
                match count {
                    syscalls::AGAIN => Ok(None),
                    error if error < 0 => Err(os_error(error)),
                    count => Int::new(count).into_py_any(py).map(Some),
                }
            }
            Work::Call { attempt, .. } => match attempt.call0(py) {
                Err(error) if error.is_instance_of::<PyBlockingIOError>(py) => Ok(None),
                outcome => outcome.map(Some),
            },
            Work::Send { buffer, sent } => {
                let op = Op::Send(ops::Send {
                    fd,
                    buf: buffer.ptr().wrapping_add(*sent),
                    len: buffer.len() - *sent,
                    flags: 0,
                });
                // SAFETY: the buffer is exported for as long as `buffer` lives.
                match unsafe { scheduler.get().attempt(&op) }? {
                    syscalls::AGAIN => return Ok(None),
                    error if error < 0 => return Err(os_error(error)),
                    count => *sent += count as usize,
                }
                Ok((*sent >= buffer.len()).then(|| py.None()))
            }
            Work::Connect {
                address,
                shown,
                begun,
            } => connect(scheduler, fd, address, shown, begun),
            // Files are ops of the engine's.
            Work::File(_) => Ok(None),
        }
    }
}

fn connect(
    scheduler: &Bound<'_, Scheduler>,
    fd: RawFd,
    address: &Address,
    shown: &Py<PyAny>,
    begun: &mut bool,
) -> PyResult<Option<Py<PyAny>>> {
    let (py, scheduler) = (scheduler.py(), scheduler.get());
    if !std::mem::replace(begun, true) {
        let op = Op::Connect(ops::Connect {
            fd,
            addr: (&raw const address.storage).cast(),
            len: address.len,
        });
        // SAFETY: the address lives while the call lasts.
        return match -unsafe { scheduler.attempt(&op) }? {
            0 => Ok(Some(py.None())),
            // EALREADY: a cancelled operation has begun to connect.
            libc::EINPROGRESS | libc::EALREADY => Ok(None),
            errno => Err(os_error(-errno)),
        };
    }
    // The wake-up may come from another file that had this number before, so check that the socket is connected.
    let events = Side::Write.events();
    if scheduler.call(Call::Poll { fd, events })? == syscalls::AGAIN {
        return Ok(None);
    }
    match -scheduler.call(Call::SocketError { fd })? {
        0 => Ok(Some(py.None())),
        errno => {
            let message = format!("Connect call failed {}", shown.bind(py));
            Err(py_os_error(errno, message))
        }
    }
}
