//! Memory for files past the page cache (`O_DIRECT`): it begins at an address of whole blocks, and rings know it beforehand if it is
//! small.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_int;

use proact_driver::Loan;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::make::py_error;

/// Bytes: a multiple of what addresses have to be aligned to, on all file systems with `O_DIRECT`.
const BLOCK: usize = 4096;
/// Bytes: how long memory may be that is taken from what all users share.
const SMALL: usize = 64 * 1024;

enum Memory {
    Lent(Loan),
    Own(*mut u8, Layout),
}

// SAFETY: nobody else has the memory, and it may be freed in any thread.
unsafe impl Send for Memory {}
// SAFETY: what is in it is read and written by those who have exported it, as that of a `bytearray`.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(size: usize) -> Option<Memory> {
        if size <= SMALL
            && let Some(loan) = Loan::new(size)
        {
            return Some(Memory::Lent(loan));
        }
        let layout = Layout::from_size_align(size, BLOCK).ok()?;
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        (!memory.is_null()).then_some(Memory::Own(memory, layout))
    }

    fn ptr(&self) -> *mut u8 {
        match self {
            Memory::Lent(loan) => loan.ptr(),
            Memory::Own(memory, _) => *memory,
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Own(memory, layout) = self {
            // SAFETY: allocated with this layout, above.
            unsafe { dealloc(*memory, *layout) };
        }
    }
}

/// A buffer of `size` bytes. It lives as long as it is exported, and so until the last op that uses it has ended.
#[pyclass(frozen, module = "proact._core")]
pub struct Aligned {
    memory: Memory,
    size: usize,
}

#[pymethods]
impl Aligned {
    #[new]
    fn new(size: usize) -> PyResult<Aligned> {
        if size == 0 {
            return Err(py_error::<PyValueError>("size must be more than 0"));
        }
        let memory = isize::try_from(size).ok().and_then(|_| Memory::new(size));
        match memory {
            Some(memory) => Ok(Aligned { memory, size }),
            None => Err(PyMemoryError::new_err(())),
        }
    }

    /// # Safety
    /// Python passes a view to fill.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let (memory, size) = (this.memory.ptr().cast(), this.size as isize);
        // SAFETY: the view keeps the object, and the object its memory.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), memory, size, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}
