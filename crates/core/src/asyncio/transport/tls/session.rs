//! One TLS session: Python's own `ssl.SSLObject` between two `ssl.MemoryBIO`s. Knows neither protocols nor transports.
//!
//! What runs per record goes to the object inside the `SSLObject`, by bound methods that are looked up once. The session is asked
//! as often as whole records have come: once more would cost an exception (`SSLWantReadError`) for each message.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::records::Records;
use crate::py::buffer::Buffer;
use crate::py::bytes::{bytes_memory, copy_bytes, shorten, uninit_bytes};
use crate::py::cell::LoopCell;
use crate::py::make::{Int, Name, name, py_error};

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
    /// What was fed. Nothing is known of a class of the program's, whose `read` may keep bytes back.
    records: LoopCell<Records>,
}

/// What was decrypted.
pub struct Plain<'py> {
    /// In one object.
    pub data: Option<Bound<'py, PyBytes>>,
    /// Why there is no more.
    pub stop: Stop,
    /// Nothing but plain bytes came, so that the session has nothing to say to its peer.
    pub silent: bool,
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
        let mut records = Records::default();
        if !native {
            records.lose_track();
        }
        Ok(Session {
            feed: incoming.getattr(name!("write"))?.unbind(),
            drain: outgoing.getattr(name!("read"))?.unbind(),
            read: engine.getattr(name!("read"))?.unbind(),
            write: engine.getattr(name!("write"))?.unbind(),
            object: object.unbind(),
            incoming: incoming.unbind(),
            outgoing: outgoing.unbind(),
            records: LoopCell::new(records),
        })
    }

    /// Takes what came from the peer.
    #[inline]
    pub fn feed(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.feed.bind(py).call1((data,))?;
        let mut records = self.records.get()?;
        match data.cast::<PyBytes>() {
            Ok(data) => records.take(data.as_bytes()),
            Err(_) => records.lose_track(),
        }
        Ok(())
    }

    /// The handshake is done; what was fed and is not in the BIO any more was part of it.
    pub fn handshake_done(&self, py: Python<'_>, compressed: bool) -> PyResult<()> {
        let unread = self.unread(py)?;
        let mut records = self.records.get()?;
        if compressed {
            // A record may hold more than its bytes.
            records.lose_track();
        }
        if unread == 0 {
            records.all_taken();
        }
        Ok(())
    }

    /// Whether asking for plain bytes can give any.
    #[inline]
    pub fn may_have_more(&self) -> PyResult<bool> {
        Ok(self.records.get()?.whole().is_none_or(|(count, _)| count > 0))
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

    /// All that can be decrypted now.
    pub fn read<'py>(&self, py: Python<'py>) -> PyResult<Plain<'py>> {
        let whole = self.records.get()?.whole();
        let plain = match whole {
            // What the handshake has left for the peer may wait.
            Some((0, _)) => {
                return Ok(Plain {
                    data: None,
                    stop: Stop::Wants,
                    silent: false,
                });
            }
            Some((1, bytes)) => self.read_record(py, bytes),
            Some((count, bytes)) => self.read_records(py, count, bytes),
            None => self.read_chunks(py),
        }?;
        if matches!(plain.stop, Stop::Wants) {
            self.records.get()?.all_taken();
        }
        Ok(plain)
    }

    fn read_chunk<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.read.bind(py).call1((Int::new(most),))?.cast_into()?)
    }

    /// The one record that has come whole, of so many bytes: most reads.
    #[inline]
    fn read_record<'py>(&self, py: Python<'py>, bytes: usize) -> PyResult<Plain<'py>> {
        // The object is made in the size that is asked for, and shortened.
        let (data, stop) = match self.read_chunk(py, bytes.min(RECORD)) {
            Ok(data) if data.as_bytes().is_empty() => (None, Stop::Closed),
            Ok(data) => (Some(data), Stop::Wants),
            Err(error) => (None, Self::stop(py, error)),
        };
        let silent = data.is_some();
        Ok(Plain { data, stop, silent })
    }

    /// Several records, of so many bytes together, each decrypted straight into the one object that they make up.
    fn read_records<'py>(&self, py: Python<'py>, count: usize, bytes: usize) -> PyResult<Plain<'py>> {
        let object = uninit_bytes(py, bytes)?;
        let memory = bytes_memory(&object);
        let (mut filled, mut read) = (0, 0);
        let stop = loop {
            if read == count {
                break Stop::Wants;
            }
            // A record is decrypted to fewer bytes than it has: there is room for all that are left.
            let most = (bytes - filled).min(RECORD);
            // SAFETY: `filled` is within the object, which outlives the view: the standard library's `read` keeps no hold of it.
            match unsafe { self.read_memory(py, memory.add(filled), most) } {
                Ok(0) => break Stop::Closed,
                Ok(more) => filled += more,
                Err(error) => break Self::stop(py, error),
            }
            read += 1;
        };
        let data = if filled > 0 {
            Some(shorten(object, filled)?)
        } else {
            None
        };
        let silent = read == count;
        Ok(Plain { data, stop, silent })
    }

    /// What a session gives of whose records nothing is known, until it wants more.
    fn read_chunks<'py>(&self, py: Python<'py>) -> PyResult<Plain<'py>> {
        let mut chunks: Vec<Bound<'py, PyBytes>> = Vec::new();
        let stop = loop {
            match self.read_chunk(py, RECORD) {
                Ok(chunk) if chunk.as_bytes().is_empty() => break Stop::Closed,
                Ok(chunk) => chunks.push(chunk),
                Err(error) => break Self::stop(py, error),
            }
        };
        let joined: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        let data = if joined.is_empty() {
            None
        } else {
            Some(copy_bytes(py, &joined.concat())?)
        };
        Ok(Plain {
            data,
            stop,
            silent: false,
        })
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
        if self.records.get()?.whole().is_none() {
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
        while filled < room.len() && self.may_have_more()? {
            let left = room.len() - filled;
            // SAFETY: within the buffer, which stays exported for the call.
            let count = unsafe { self.read_memory(py, room.ptr().add(filled), left) };
            match count {
                Ok(0) => return Ok((filled, Some(Stop::Closed))),
                Ok(count) => {
                    filled += count;
                    // Else the record may have more than the buffer had room for.
                    if count < left || left >= RECORD {
                        self.records.get()?.one_read();
                    }
                }
                Err(error) => {
                    let stop = Self::stop(py, error);
                    if matches!(stop, Stop::Wants) {
                        self.records.get()?.all_taken();
                    }
                    return Ok((filled, Some(stop)));
                }
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
