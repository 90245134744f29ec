//! `loop.sock_*` for sockets of the program's own: what each asks for, and how a socket is tried.

use std::os::fd::RawFd;

use proact_driver::{Op, syscalls};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBlockingIOError, PyValueError};
use pyo3::prelude::*;

use crate::address::Address;
use crate::buffer::Buffer;
use crate::call::{copy_bytes, os_error};
use crate::make::{Int, name, py_error, py_os_error};
use crate::operation::{Operation, Work};
use crate::readers::Side;
use crate::scheduler::Scheduler;

/// The number of a socket's fd now; -1 once it is closed.
pub fn number(socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    socket.call_method0(name!("fileno"))?.extract()
}

/// The fd of a socket on which an operation begins, which debug mode wants non-blocking.
pub fn socket_fd(scheduler: &Bound<'_, Scheduler>, socket: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let this = scheduler.get();
    this.check_closed()?;
    if this.is_debug() && !socket.call_method0(name!("gettimeout"))?.eq(0)? {
        return Err(py_error::<PyValueError>("the socket must be non-blocking"));
    }
    this.check_plain_socket(socket)?;
    let fd = number(socket)?;
    let mut io = this.io.get()?;
    if io.is_owned(fd) {
        drop(io);
        this.check_not_a_transport(socket.py(), fd)?;
        io = this.io.get()?;
    }
    if !io.evict(fd, socket.as_ptr()) {
        return Err(os_error(-libc::EBADF));
    }
    Ok(fd)
}

/// One attempt at a receive into memory that is valid while it lasts.
fn recv(fd: RawFd, buf: *mut u8, len: usize) -> i32 {
    let flags = 0;
    // SAFETY: as the callers below see to.
    unsafe { syscalls::attempt(&Op::Recv { fd, buf, len, flags }) }
}

impl Work {
    /// Tries it, without waiting. `None`: the socket is not ready.
    pub fn attempt(&mut self, scheduler: &Bound<'_, Scheduler>, fd: RawFd) -> PyResult<Option<Py<PyAny>>> {
        let py = scheduler.py();
        match self {
            Work::Receive { len: 0 } => Ok(Some(copy_bytes(py, b"")?.into_any().unbind())),
            Work::Receive { len } => {
                let received = scheduler
                    .get()
                    .io
                    .get()?
                    .spare
                    .receive(py, *len, |buf, len| recv(fd, buf, len))?;
                match received {
                    Ok(bytes) => Ok(Some(bytes.into_any().unbind())),
                    Err(syscalls::AGAIN) => Ok(None),
                    Err(error) => Err(os_error(error)),
                }
            }
            Work::ReceiveInto { buffer } => {
                let buffer = Buffer::room(buffer.bind(py))?;
                let len = buffer.len();
                let count = if len == 0 { 0 } else { recv(fd, buffer.ptr(), len) };
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
                let op = Op::Send {
                    fd,
                    buf: buffer.ptr().wrapping_add(*sent),
                    len: buffer.len() - *sent,
                    flags: 0,
                };
                // SAFETY: the buffer is exported for as long as `buffer` lives.
                match unsafe { syscalls::attempt(&op) } {
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
            } => connect(py, fd, address, shown, begun),
            // Files are not tried.
            Work::File(_) => Ok(None),
        }
    }
}

fn connect(
    py: Python<'_>,
    fd: RawFd,
    address: &Address,
    shown: &Py<PyAny>,
    begun: &mut bool,
) -> PyResult<Option<Py<PyAny>>> {
    if !std::mem::replace(begun, true) {
        let op = Op::Connect {
            fd,
            addr: (&raw const address.storage).cast(),
            len: address.len,
        };
        // SAFETY: the address lives while the call lasts.
        return match -unsafe { syscalls::attempt(&op) } {
            0 => Ok(Some(py.None())),
            // EALREADY: one that was cancelled has begun it.
            libc::EINPROGRESS | libc::EALREADY => Ok(None),
            errno => Err(os_error(-errno)),
        };
    }
    // The wake-up may be for a file that had this number before: success must be seen, not supposed.
    if syscalls::poll_now(fd, Side::Write.events()) == syscalls::AGAIN {
        return Ok(None);
    }
    match -syscalls::socket_error(fd) {
        0 => Ok(Some(py.None())),
        errno => {
            let message = format!("Connect call failed {}", shown.bind(py));
            Err(py_os_error(errno, message))
        }
    }
}

#[pymethods]
impl Scheduler {
    /// Receives up to `n` bytes; empty at the end of the stream.
    fn sock_recv(slf: &Bound<'_, Self>, sock: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<Operation>> {
        let len = usize::try_from(n).map_err(|_| py_error::<PyValueError>("negative buffersize in recv"))?;
        Operation::new(slf, sock, Work::Receive { len })
    }

    /// Receives into a buffer; the number of bytes. The buffer is not held while waiting.
    fn sock_recv_into(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        buf: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        Operation::new(slf, sock, Work::ReceiveInto { buffer: buf })
    }

    /// Sends all of `data`.
    fn sock_sendall(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let buffer = Buffer::of(data)?;
        Operation::new(slf, sock, Work::Send { buffer, sent: 0 })
    }

    /// `attempt()` once the socket is readable; it raises `BlockingIOError` where it was not after all.
    #[pyo3(name = "_sock_when_readable")]
    fn sock_when_readable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        let side = Side::Read;
        Operation::new(slf, sock, Work::Call { side, attempt })
    }

    /// The same once it is writable.
    #[pyo3(name = "_sock_when_writable")]
    fn sock_when_writable(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        attempt: Py<PyAny>,
    ) -> PyResult<Py<Operation>> {
        let side = Side::Write;
        Operation::new(slf, sock, Work::Call { side, attempt })
    }

    /// Connects to an address that is resolved already.
    #[pyo3(name = "_sock_connect")]
    fn sock_connect(
        slf: &Bound<'_, Self>,
        sock: &Bound<'_, PyAny>,
        address: Bound<'_, PyAny>,
    ) -> PyResult<Py<Operation>> {
        let family: i32 = sock.getattr(name!("family"))?.extract()?;
        let work = Work::Connect {
            address: Box::new(Address::parse(family, &address)?),
            shown: address.unbind(),
            begun: false,
        };
        Operation::new(slf, sock, work)
    }
}
