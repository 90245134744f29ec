//! Signals for gevent's signal watchers, caught below Python: Python's own handlers, `signal.getsignal` and the wake-up fd stay as
//! they are. The handler only notes the number, and writes to an event that the loop watches.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::cell::SharedCell;
use crate::py::errno::io_error;
use crate::py::make::py_error;

/// One more than the greatest number of a signal.
const COUNT: usize = 65;

/// The event of the loop that watches a signal; -1: none does.
static EVENTS: [AtomicI32; COUNT] = [const { AtomicI32::new(-1) }; COUNT];
static CAUGHT: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

extern "C" fn note(number: libc::c_int) {
    let index = number as usize;
    if index >= COUNT {
        return;
    }
    CAUGHT[index].store(true, Ordering::Release);
    let event = EVENTS[index].load(Ordering::Acquire);
    if event >= 0 {
        let one = 1u64;
        // SAFETY: eight readable bytes; write(2) and errno are allowed in a handler, which leaves errno as it was.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(event, (&raw const one).cast(), 8);
            *libc::__errno_location() = errno;
        }
    }
}

/// A signal that is caught for a loop. What was set for the signal before is set again by `release`.
#[pyclass(frozen, module = "proact._core")]
pub struct GeventSignal {
    number: usize,
    before: SharedCell<Option<libc::sigaction>>,
}

#[pymethods]
impl GeventSignal {
    /// Catches a signal. `event`: an eventfd that becomes readable when it comes.
    #[new]
    fn py_new(number: usize, event: RawFd) -> PyResult<GeventSignal> {
        if number == 0 || number >= COUNT {
            return Err(py_error::<PyValueError>(format!(
                "illegal signal number: {number}"
            )));
        }
        CAUGHT[number].store(false, Ordering::Release);
        EVENTS[number].store(event, Ordering::Release);
        // SAFETY: all zeros is a valid sigaction; both are local, and the handler keeps the rules of signal-safety(7).
        let before = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigfillset(&raw mut action.sa_mask);
            if libc::sigaction(number as i32, &raw const action, &raw mut before) < 0 {
                return Err(io_error(io::Error::last_os_error()));
            }
            before
        };
        Ok(GeventSignal {
            number,
            before: SharedCell::new(Some(before)),
        })
    }

    /// Whether the signal has come since the last call.
    fn take(&self) -> bool {
        CAUGHT[self.number].swap(false, Ordering::AcqRel)
    }

    /// Catches it by another event, in a forked child.
    fn move_to(&self, event: RawFd) {
        EVENTS[self.number].store(event, Ordering::Release);
    }

    /// Catches the signal no more. Idempotent.
    fn release(&self) {
        let Some(before) = self.before.lock().take() else {
            return;
        };
        // SAFETY: what sigaction(2) itself has returned. A handler that the program has set meanwhile stays.
        unsafe {
            let mut current: libc::sigaction = std::mem::zeroed();
            libc::sigaction(self.number as i32, std::ptr::null(), &raw mut current);
            if current.sa_sigaction == note as extern "C" fn(libc::c_int) as libc::sighandler_t {
                libc::sigaction(self.number as i32, &raw const before, std::ptr::null_mut());
            }
        }
        EVENTS[self.number].store(-1, Ordering::Release);
    }
}
