//! The state of a stream reader: asyncio's private attributes of it, in one native object, so that a piece that comes and a
//! read cost no look-up of attributes. What was received and nobody has read yet is in one of two places. A piece that comes while nothing is left stays the object that the socket was received into, and a read that takes all of
//! it returns that object: nothing is copied. Further pieces, and whatever code of asyncio asks for the buffer, have all bytes
//! joined in asyncio's `bytearray`.

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyByteArray, PyBytes};

use crate::py::bytes::copy_bytes;
use crate::py::call::own_attribute;
use crate::py::cell::SharedCell;
use crate::py::make::name;
use crate::reactor::scheduler::Scheduler;

struct Held {
    /// Empty while there is a piece.
    joined: Py<PyByteArray>,
    piece: Option<Py<PyBytes>>,
    /// How much of the piece was read.
    read: usize,
    /// Python code has asked for the buffer and may hold it: there are no pieces from then on.
    shared: bool,
    eof: bool,
    paused: bool,
    limit: usize,
    /// The limit as the program gave it.
    given: Py<PyAny>,
    // `None` in Python where there is none here.
    waiter: Option<Py<PyAny>>,
    exception: Option<Py<PyAny>>,
    transport: Option<Py<PyAny>>,
}

/// The state of a stream reader.
#[pyclass(frozen, module = "proact._core")]
pub struct StreamState {
    /// The loop of the stream.
    scheduler: Py<Scheduler>,
    held: SharedCell<Held>,
}

/// Where the bytes are.
enum Place<'py> {
    Piece(Bound<'py, PyBytes>, usize),
    Joined(Bound<'py, PyByteArray>),
}

impl Place<'_> {
    fn len(&self) -> usize {
        match self {
            Place::Piece(piece, read) => piece.as_bytes().len() - read,
            Place::Joined(joined) => joined.len(),
        }
    }
}

fn extend(joined: &Bound<'_, PyByteArray>, bytes: &Bound<'_, PyBytes>, from: usize) -> PyResult<()> {
    let py = joined.py();
    let rest = if from == 0 {
        bytes.clone()
    } else {
        copy_bytes(py, &bytes.as_bytes()[from..])?
    };
    // SAFETY: two live objects; a new reference or null with an exception set.
    unsafe {
        let sum = ffi::PySequence_InPlaceConcat(joined.as_ptr(), rest.as_ptr());
        Bound::from_owned_ptr_or_err(py, sum).map(drop)
    }
}

impl StreamState {
    pub fn scheduler<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, Scheduler> {
        self.scheduler.bind(py)
    }

    fn place<'py>(&self, py: Python<'py>) -> Place<'py> {
        let held = self.held.lock();
        match &held.piece {
            Some(piece) => Place::Piece(piece.bind(py).clone(), held.read),
            None => Place::Joined(held.joined.bind(py).clone()),
        }
    }

    pub fn len(&self, py: Python<'_>) -> usize {
        self.place(py).len()
    }

    /// Appends a piece; returns how much there is now.
    pub fn push(&self, bytes: &Bound<'_, PyBytes>) -> PyResult<usize> {
        let (py, len) = (bytes.py(), bytes.as_bytes().len());
        let joined = match self.joined_if_any(py)? {
            None if self.held.lock().shared => Some(self.held.lock().joined.bind(py).clone()),
            joined => joined,
        };
        match joined {
            Some(joined) => {
                extend(&joined, bytes, 0)?;
                Ok(joined.len())
            }
            None => {
                let held = &mut *self.held.lock();
                held.piece = Some(bytes.clone().unbind());
                held.read = 0;
                Ok(len)
            }
        }
    }

    /// All bytes in one place, unless there are none.
    fn joined_if_any<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyByteArray>>> {
        match self.place(py) {
            Place::Joined(joined) if joined.len() == 0 => Ok(None),
            Place::Joined(joined) => Ok(Some(joined)),
            Place::Piece(piece, read) => {
                let joined = self.held.lock().joined.bind(py).clone();
                extend(&joined, &piece, read)?;
                let held = &mut *self.held.lock();
                let piece = held.piece.take();
                drop(piece);
                Ok(Some(joined))
            }
        }
    }

    /// Where `separator` begins at or behind `from`.
    pub fn find(&self, py: Python<'_>, separator: &[u8], from: usize) -> Option<usize> {
        match self.place(py) {
            Place::Piece(piece, read) => find(&piece.as_bytes()[read..], separator, from),
            Place::Joined(joined) => {
                // SAFETY: nobody changes it meanwhile: this calls no code of Python's, and other threads wait.
                with_critical_section(&joined, || find(unsafe { joined.as_bytes() }, separator, from))
            }
        }
    }

    /// Takes the first bytes out: `count`, or as many as there are.
    pub fn take<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let place = self.place(py);
        let count = count.min(place.len());
        match place {
            Place::Piece(piece, read) => {
                let len = piece.as_bytes().len();
                let taken = if count == len {
                    piece.clone()
                } else {
                    copy_bytes(py, &piece.as_bytes()[read..read + count])?
                };
                let held = &mut *self.held.lock();
                held.read = read + count;
                if held.read == len {
                    // `piece` is a reference, too: this frees nothing while the cell is held.
                    held.piece = None;
                }
                Ok(taken)
            }
            Place::Joined(joined) => {
                let taken = with_critical_section(&joined, || {
                    // SAFETY: as above. Another thread may have taken some before.
                    let bytes = unsafe { joined.as_bytes() };
                    copy_bytes(py, &bytes[..count.min(bytes.len())])
                })?;
                // SAFETY: a live sequence, of which so many bytes are there.
                match unsafe { ffi::PySequence_DelSlice(joined.as_ptr(), 0, count as ffi::Py_ssize_t) } {
                    0 => Ok(taken),
                    _ => Err(PyErr::fetch(py)),
                }
            }
        }
    }
}

/// A limit as a number of bytes: any number in Python, infinity included.
fn number(limit: &Bound<'_, PyAny>) -> PyResult<usize> {
    match limit.extract::<usize>() {
        Ok(number) => Ok(number),
        // Saturates, and is 0 for what is below.
        Err(_) => Ok(limit.extract::<f64>()? as usize),
    }
}

fn find(bytes: &[u8], separator: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    // SAFETY: both are valid for their lengths.
    let found = unsafe {
        libc::memmem(
            rest.as_ptr().cast(),
            rest.len(),
            separator.as_ptr().cast(),
            separator.len(),
        )
    };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

impl StreamState {
    pub fn has_ended(&self) -> bool {
        self.held.lock().eof
    }

    pub fn has_failed(&self) -> bool {
        self.held.lock().exception.is_some()
    }

    pub fn set_paused(&self, paused: bool) {
        self.held.lock().paused = paused;
    }

    pub fn limit(&self) -> usize {
        self.held.lock().limit
    }

    pub fn is_waited_for(&self) -> bool {
        self.held.lock().waiter.is_some()
    }

    pub fn take_waiter(&self) -> Option<Py<PyAny>> {
        self.held.lock().waiter.take()
    }

    /// The transport to be paused, which is noted: too much is there.
    pub fn to_pause(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let held = &mut *self.held.lock();
        let transport = held.transport.as_ref().filter(|_| !held.paused)?;
        let transport = transport.clone_ref(py);
        held.paused = true;
        Some(transport)
    }

    /// The transport that was paused and is to go on, which is noted; `most`: unless more than this is there.
    pub fn to_resume(&self, py: Python<'_>, most: usize) -> Option<Py<PyAny>> {
        if !self.held.lock().paused || self.len(py) > most {
            return None;
        }
        let held = &mut *self.held.lock();
        held.paused = false;
        held.transport.as_ref().map(|transport| transport.clone_ref(py))
    }
}

/// An attribute of asyncio's that is an object or None.
macro_rules! object_attribute {
    ($field:ident, $set:ident) => {
        #[pymethods]
        impl StreamState {
            #[getter]
            pub fn $field(&self, py: Python<'_>) -> Option<Py<PyAny>> {
                self.held
                    .lock()
                    .$field
                    .as_ref()
                    .map(|object| object.clone_ref(py))
            }

            #[setter]
            pub fn $set(&self, object: Option<Py<PyAny>>) {
                let old = std::mem::replace(&mut self.held.lock().$field, object);
                drop(old);
            }
        }
    };
}

object_attribute!(waiter, set_waiter);
object_attribute!(exception, set_exception);
object_attribute!(transport, set_transport);

#[pymethods]
impl StreamState {
    #[new]
    fn new(
        scheduler: Py<Scheduler>,
        buffer: Bound<'_, PyByteArray>,
        limit: Bound<'_, PyAny>,
    ) -> PyResult<StreamState> {
        Ok(StreamState {
            scheduler,
            held: SharedCell::new(Held {
                joined: buffer.unbind(),
                piece: None,
                read: 0,
                shared: false,
                eof: false,
                paused: false,
                limit: number(&limit)?,
                given: limit.unbind(),
                waiter: None,
                exception: None,
                transport: None,
            }),
        })
    }

    /// All bytes, in asyncio's buffer, from which they may be removed.
    #[getter]
    fn buffer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        self.held.lock().shared = true;
        match self.joined_if_any(py)? {
            Some(joined) => Ok(joined),
            None => Ok(self.held.lock().joined.bind(py).clone()),
        }
    }

    /// Puts another buffer in the place of all bytes.
    #[setter]
    fn set_buffer(&self, buffer: Bound<'_, PyByteArray>) {
        let old = {
            let held = &mut *self.held.lock();
            (
                std::mem::replace(&mut held.joined, buffer.unbind()),
                held.piece.take(),
            )
        };
        drop(old);
    }

    #[getter(eof)]
    fn eof(&self) -> bool {
        self.has_ended()
    }

    #[setter]
    fn set_eof(&self, eof: Bound<'_, PyAny>) -> PyResult<()> {
        self.held.lock().eof = eof.is_truthy()?;
        Ok(())
    }

    #[getter]
    fn paused(&self) -> bool {
        self.held.lock().paused
    }

    #[setter(paused)]
    fn set_paused_to(&self, paused: Bound<'_, PyAny>) -> PyResult<()> {
        self.set_paused(paused.is_truthy()?);
        Ok(())
    }

    #[getter(limit)]
    fn limit_given(&self, py: Python<'_>) -> Py<PyAny> {
        self.held.lock().given.clone_ref(py)
    }

    #[setter]
    fn set_limit(&self, limit: Bound<'_, PyAny>) -> PyResult<()> {
        let number = number(&limit)?;
        let held = &mut *self.held.lock();
        held.limit = number;
        let old = std::mem::replace(&mut held.given, limit.unbind());
        drop(old);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.scheduler)?;
        let Some(held) = self.held.look() else {
            return Ok(());
        };
        visit.call(&held.joined)?;
        visit.call(&held.given)?;
        visit.call(&held.waiter)?;
        visit.call(&held.exception)?;
        visit.call(&held.transport)
    }
}

/// The state of a reader that was made native.
#[inline]
pub fn of<'py>(reader: &Bound<'py, PyAny>) -> PyResult<Bound<'py, StreamState>> {
    Ok(own_attribute(reader, name!("_native"))?.cast_into::<StreamState>()?)
}
