//! One TLS session: Python's own `ssl.SSLObject` between two `ssl.MemoryBIO`s. Knows neither protocols nor transports.
//!
//! What runs per record goes to the object inside the `SSLObject`, by bound methods that are looked up once. Reading
//! stops when the BIO is empty: asking once more would cost an exception (`SSLWantReadError`) for each message.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::py::buffer::Buffer;
use crate::py::bytes::{bytes_memory, copy_bytes, shorten, uninit_bytes};
use crate::py::make::{Int, Name, name, py_error, tuple};

/// The most plain bytes that one record holds (RFC 8446, 5.1), and so the most that one call reads or writes.
const RECORD: usize = 16 * 1024;

/// Why a call stopped.
pub enum Stop {
    /// It needs more from the peer, or there is nothing more.
    Wants,
    /// The peer has closed its side (close_notify).
    Closed,
    Failed(PyErr),
}

pub struct Session {
    pub object: Py<PyAny>,
    incoming: Py<PyAny>,
    outgoing: Py<PyAny>,
    feed: Py<PyAny>,
    drain: Py<PyAny>,
    read: Py<PyAny>,
    write: Py<PyAny>,
    /// `read` and `write` are the standard library's own, which keep no hold of a buffer that they are lent.
    native: bool,
}

fn ssl_type<'py>(
    py: Python<'py>,
    known: &'static PyOnceLock<Py<PyType>>,
    name: &'static Name,
) -> PyResult<&'py Bound<'py, PyType>> {
    let class = known.get_or_try_init(py, || {
        let class = py.import(name!("ssl"))?.getattr(name)?;
        Ok::<_, PyErr>(class.cast_into::<PyType>()?.unbind())
    })?;
    Ok(class.bind(py))
}

/// Whether the session only waits for its peer.
pub fn wants_more(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    static WANT_READ: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static SYSCALL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(
        error.is_instance(py, ssl_type(py, &WANT_READ, name!("SSLWantReadError"))?)
            || error.is_instance(py, ssl_type(py, &SYSCALL, name!("SSLSyscallError"))?),
    )
}

pub fn is_ssl_error(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    static ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(error.is_instance(py, ssl_type(py, &ERROR, name!("SSLError"))?))
}

pub fn is_certificate_error(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    static CERTIFICATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Ok(error.is_instance(py, ssl_type(py, &CERTIFICATE, name!("CertificateError"))?))
}

/// `(RECORD,)`, the arguments of most reads.
fn record_args(py: Python<'_>) -> PyResult<&Bound<'_, PyTuple>> {
    static ARGS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();
    ARGS.get_or_try_init(py, || {
        Ok(tuple(py, &[Int::new(RECORD).into_pyobject(py)?.into_any()])?.unbind())
    })
    .map(|args| args.bind(py))
}

impl Session {
    pub fn new(
        object: Bound<'_, PyAny>,
        incoming: Bound<'_, PyAny>,
        outgoing: Bound<'_, PyAny>,
    ) -> PyResult<Session> {
        static OBJECT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = object.py();
        // A program may have its own class there (`SSLContext.sslobject_class`), whose methods are then called.
        let native = object.get_type().is(ssl_type(py, &OBJECT, name!("SSLObject"))?);
        let engine = if native {
            object.getattr(name!("_sslobj"))?
        } else {
            object.clone()
        };
        Ok(Session {
            feed: incoming.getattr(name!("write"))?.unbind(),
            drain: outgoing.getattr(name!("read"))?.unbind(),
            read: engine.getattr(name!("read"))?.unbind(),
            write: engine.getattr(name!("write"))?.unbind(),
            object: object.unbind(),
            incoming: incoming.unbind(),
            outgoing: outgoing.unbind(),
            native,
        })
    }

    /// Takes what came from the peer.
    #[inline]
    pub fn feed(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.feed.bind(py).call1((data,)).map(drop)
    }

    /// What is to go to the peer.
    #[inline]
    pub fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.drain.bind(py).call0()?.cast_into()?)
    }

    /// Bytes from the peer that are not decrypted yet.
    #[inline]
    pub fn unread(&self, py: Python<'_>) -> PyResult<usize> {
        self.incoming.bind(py).getattr(name!("pending"))?.extract()
    }

    /// Bytes for the peer that were not drained yet.
    pub fn undrained(&self, py: Python<'_>) -> PyResult<usize> {
        self.outgoing.bind(py).getattr(name!("pending"))?.extract()
    }

    pub fn handshake(&self, py: Python<'_>) -> PyResult<()> {
        self.object.call_method0(py, name!("do_handshake")).map(drop)
    }

    /// Sends our close_notify, and waits for the peer's.
    pub fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        self.object.call_method0(py, name!("unwrap")).map(drop)
    }

    fn stop(py: Python<'_>, error: PyErr) -> Stop {
        match wants_more(py, &error) {
            Ok(true) => Stop::Wants,
            Ok(false) => Stop::Failed(error),
            Err(error) => Stop::Failed(error),
        }
    }

    /// All that can be decrypted now, as one object; and why there is no more.
    pub fn read<'py>(&self, py: Python<'py>) -> PyResult<(Option<Bound<'py, PyBytes>>, Stop)> {
        let unread = self.unread(py)?;
        if unread > RECORD + RECORD / 8 && self.native {
            return self.read_records(py, unread + RECORD);
        }
        let mut all: Vec<Bound<'py, PyBytes>> = Vec::new();
        let mut first = None;
        let stop = loop {
            let chunk = match self.read.bind(py).call(record_args(py)?, None) {
                Ok(chunk) => chunk.cast_into::<PyBytes>()?,
                Err(error) => break Self::stop(py, error),
            };
            if chunk.as_bytes().is_empty() {
                break Stop::Closed;
            }
            match &first {
                None => first = Some(chunk),
                Some(_) => all.push(chunk),
            }
            // A whole record was read, so that none is left inside.
            if self.unread(py)? == 0 {
                break Stop::Wants;
            }
        };
        let Some(first) = first else {
            return Ok((None, stop));
        };
        if all.is_empty() {
            return Ok((Some(first), stop));
        }
        let joined: Vec<&[u8]> = std::iter::once(&first)
            .chain(&all)
            .map(|chunk| chunk.as_bytes())
            .collect();
        Ok((Some(copy_bytes(py, &joined.concat())?), stop))
    }

    /// Many records, each decrypted straight into the one object that they make up.
    fn read_records<'py>(
        &self,
        py: Python<'py>,
        capacity: usize,
    ) -> PyResult<(Option<Bound<'py, PyBytes>>, Stop)> {
        let bytes = uninit_bytes(py, capacity)?;
        let memory = bytes_memory(&bytes);
        let mut filled = 0;
        let stop = loop {
            let space = capacity - filled;
            // SAFETY: `filled` is within the object, which outlives the view: `read` keeps no hold of it.
            let count = unsafe { self.read_memory(py, memory.add(filled), space.min(RECORD)) };
            match count {
                Ok(0) => break Stop::Closed,
                Ok(count) => filled += count,
                Err(error) => break Self::stop(py, error),
            }
            if filled == capacity || (space >= RECORD && self.unread(py)? == 0) {
                break Stop::Wants;
            }
        };
        if filled == 0 {
            return Ok((None, stop));
        }
        Ok((Some(shorten(bytes, filled)?), stop))
    }

    /// # Safety
    /// `len` bytes at `memory` are writable.
    unsafe fn read_memory(&self, py: Python<'_>, memory: *mut u8, len: usize) -> PyResult<usize> {
        // SAFETY: as the caller says; returns a new reference or null with an exception set.
        let view = unsafe {
            let view = ffi::PyMemoryView_FromMemory(memory.cast(), len as ffi::Py_ssize_t, ffi::PyBUF_WRITE);
            Bound::from_owned_ptr_or_err(py, view)?
        };
        let count = self.read.bind(py).call1((Int::new(len), &view));
        if !self.native {
            // A class of the program's may have kept the view: it must not outlive the memory.
            view.call_method0(name!("release"))?;
        }
        count?.extract()
    }

    /// Decrypts into a buffer of the program's: how many bytes, and, if the buffer was not filled, why.
    pub fn read_into(&self, buffer: &Bound<'_, PyAny>) -> PyResult<(usize, Option<Stop>)> {
        let py = buffer.py();
        // Exported only while it is written to.
        let room = Buffer::room(buffer)?;
        if room.len() == 0 {
            return Err(py_error::<PyRuntimeError>(
                "get_buffer() returned an empty buffer",
            ));
        }
        let mut filled = 0;
        while filled < room.len() {
            let left = room.len() - filled;
            // SAFETY: within the buffer, which stays exported for the call.
            let count = unsafe { self.read_memory(py, room.ptr().add(filled), left) };
            match count {
                Ok(0) => return Ok((filled, Some(Stop::Closed))),
                Ok(count) => filled += count,
                Err(error) => return Ok((filled, Some(Self::stop(py, error)))),
            }
            if left >= RECORD && self.unread(py)? == 0 {
                return Ok((filled, Some(Stop::Wants)));
            }
        }
        Ok((filled, None))
    }

    /// Encrypts up to `most` bytes of `data` from `offset` on; `None` where the session must hear from its peer first.
    #[inline]
    pub fn write(&self, data: &Bound<'_, PyBytes>, offset: usize, most: usize) -> PyResult<Option<usize>> {
        let py = data.py();
        let len = data.as_bytes().len();
        let written = if offset == 0 && len <= most {
            self.write.bind(py).call1((data,))
        } else {
            // SAFETY: a live bytes object; returns a new reference or null with an exception set.
            let view =
                unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyMemoryView_FromObject(data.as_ptr()))? };
            self.write
                .bind(py)
                .call1((slice(&view, offset, len.min(offset + most))?,))
        };
        match written {
            Ok(count) => Ok(Some(count.extract()?)),
            Err(error) if wants_more(py, &error)? => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [
            &self.object,
            &self.incoming,
            &self.outgoing,
            &self.feed,
            &self.drain,
            &self.read,
            &self.write,
        ] {
            visit.call(object)?;
        }
        Ok(())
    }
}

fn slice<'py>(view: &Bound<'py, PyAny>, from: usize, to: usize) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live sequence; returns a new reference or null with an exception set.
    unsafe {
        let part = ffi::PySequence_GetSlice(view.as_ptr(), from as ffi::Py_ssize_t, to as ffi::Py_ssize_t);
        Bound::from_owned_ptr_or_err(view.py(), part)
    }
}
