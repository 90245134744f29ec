//! Memory of `bytes` objects that is used again.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::bytes::{bytes_memory, copy_bytes, refill, shorten, uninit_bytes};
use crate::py::unique::is_unique;

/// A buffer whose size is between these is used again if little was received into it.
const WORTH_KEEPING: usize = 4096;
const KEPT: usize = 4 << 20;

/// An object of at most this many bytes is used again once the program has dropped it.
const RETURNED: usize = 32 * 1024;

#[derive(Default)]
pub struct Spare {
    /// The buffer of a receive that got little: the bytes were copied out, and the next receive uses the buffer.
    buffer: Option<Py<PyBytes>>,
    /// What a protocol was given and did not keep. To allocate 1 KiB and to free it takes a seventh of the instructions of an echo.
    returned: Option<Py<PyBytes>>,
}

impl Spare {
    /// Lets `fill` write into `len` bytes of memory, and returns as many bytes as `fill` says, or its negative result.
    pub fn receive<'py>(
        &mut self,
        py: Python<'py>,
        len: usize,
        fill: impl FnOnce(*mut u8, usize) -> i32,
    ) -> PyResult<Result<Bound<'py, PyBytes>, i32>> {
        let spare = self.buffer.take().map(|bytes| bytes.into_bound(py));
        let bytes = match spare.filter(|bytes| bytes.as_bytes().len() == len) {
            Some(bytes) => bytes,
            None => uninit_bytes(py, len)?,
        };
        let count = fill(bytes_memory(&bytes), len);
        let little = count <= 0 || count as usize <= len / 4;
        if !(WORTH_KEEPING..=KEPT).contains(&len) || !little {
            return match usize::try_from(count) {
                Ok(count) => shorten(bytes, count).map(Ok),
                Err(_) => Ok(Err(count)),
            };
        }
        let received = match usize::try_from(count) {
            Ok(count) => match self.copy(py, &bytes.as_bytes()[..count]) {
                Ok(received) => Ok(received),
                // There is no memory for a copy; return the large buffer, so that the received bytes are not lost.
                Err(_) => return shorten(bytes, count).map(Ok),
            },
            Err(_) => Err(count),
        };
        self.buffer = Some(bytes.unbind());
        Ok(received)
    }

    /// A `bytes` of what is at `source`.
    #[inline]
    pub fn copy<'py>(&mut self, py: Python<'py>, source: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        if let Some(returned) = &self.returned {
            let room = returned.bind(py).as_bytes().len();
            // At most an eighth of the memory stays unused, if the program keeps the object this time.
            if (room - room / 8..=room).contains(&source.len())
                && let Some(returned) = self.returned.take()
            {
                return Ok(refill(returned.into_bound(py), source));
            }
        }
        copy_bytes(py, source)
    }

    /// Takes back what a protocol was given, if the protocol has not kept it.
    #[inline]
    pub fn take_back(&mut self, bytes: Bound<'_, PyBytes>) {
        let len = bytes.as_bytes().len();
        // SAFETY: a live object, of which this is a reference. Objects of 0 bytes and of 1 byte may be shared by the interpreter.
        if (2..=RETURNED).contains(&len) && unsafe { is_unique(bytes.as_ptr()) } {
            self.returned = Some(bytes.unbind());
        }
    }
}
