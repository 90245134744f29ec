//! The buffer that `sock_recv` receives into.

use crate::py::bytes::{bytes_memory, copy_bytes, shorten, uninit_bytes};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A buffer whose size is between these is used again if little was received into it.
const WORTH_KEEPING: usize = 4096;
const KEPT: usize = 4 << 20;

/// The buffer of a receive that got little: the bytes were copied out, and the next receive of the same size uses the buffer.
#[derive(Default)]
pub struct Spare(Option<Py<PyBytes>>);

impl Spare {
    /// Lets `fill` write into `len` bytes of memory, and returns as many bytes as `fill` says, or its negative result.
    pub fn receive<'py>(
        &mut self,
        py: Python<'py>,
        len: usize,
        fill: impl FnOnce(*mut u8, usize) -> i32,
    ) -> PyResult<Result<Bound<'py, PyBytes>, i32>> {
        let spare = self.0.take().map(|bytes| bytes.into_bound(py));
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
            Ok(count) => match copy_bytes(py, &bytes.as_bytes()[..count]) {
                Ok(received) => received,
                // There is no memory for a copy; return the large buffer, so that the received bytes are not lost.
                Err(_) => return shorten(bytes, count).map(Ok),
            },
            Err(_) => {
                self.0 = Some(bytes.unbind());
                return Ok(Err(count));
            }
        };
        self.0 = Some(bytes.unbind());
        Ok(Ok(received))
    }
}
