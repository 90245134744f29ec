//! Cells that one piece of code uses at a time, whoever asks. Neither kind is held across a call into Python, and neither relies on
//! the GIL: the engine's wait holds the loop's without it.
//!
//! A [`LoopCell`] is the loop's own, and used by its thread. Another thread that reaches for it (an error of the program, but one
//! that Python permits) must meet an exception, not undefined behaviour, and so must code that is re-entered while it holds the
//! cell. A [`SharedCell`] is used by any thread, for a few instructions at a time: whoever finds it busy waits.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::py::make::py_error;

struct Cell<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `busy` admits one guard at a time, so the value is only ever used by one thread at a time.
unsafe impl<T: Send> Sync for Cell<T> {}

impl<T> Cell<T> {
    fn new(value: T) -> Cell<T> {
        Cell {
            busy: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    #[inline]
    fn take(&self) -> Option<Guard<'_, T>> {
        if self.busy.swap(true, Ordering::Acquire) {
            None
        } else {
            Some(Guard(self))
        }
    }
}

/// The loop's own.
pub struct LoopCell<T>(Cell<T>);

impl<T> LoopCell<T> {
    pub fn new(value: T) -> LoopCell<T> {
        LoopCell(Cell::new(value))
    }

    /// The value, for as long as the guard lives.
    ///
    /// # Errors
    /// `RuntimeError` while somebody else has it.
    #[inline]
    pub fn get(&self) -> PyResult<Guard<'_, T>> {
        self.0.take().ok_or_else(|| {
            py_error::<PyRuntimeError>(
                "Non-thread-safe operation: the event loop is in use by another thread",
            )
        })
    }

    /// The value, if nobody has it: for finalisers, which run in any thread, and leave to the loop's what they can't do here.
    #[inline]
    pub fn if_free(&self) -> Option<Guard<'_, T>> {
        self.0.take()
    }

    /// For the collector, which can't wait: whoever has the value may be stopped meanwhile. What it does not see counts as in use.
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.0.take()
    }
}

/// Any thread's.
pub struct SharedCell<T>(Cell<T>);

impl<T> SharedCell<T> {
    pub fn new(value: T) -> SharedCell<T> {
        SharedCell(Cell::new(value))
    }

    /// The value, as soon as whoever has it lets go. Uncontended it costs one atomic operation, where a mutex costs two.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.0.take() {
                return guard;
            }
            std::thread::yield_now();
        }
    }

    /// As [`LoopCell::look`].
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.0.take()
    }

    /// The value, without asking.
    ///
    /// # Safety
    /// Nobody else can reach the cell for as long as the reference lives.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "what the caller promises is what `&mut self` would say"
    )]
    pub unsafe fn alone(&self) -> &mut T {
        // SAFETY: as the caller promises.
        unsafe { &mut *self.0.value.get() }
    }
}

pub struct Guard<'a, T>(&'a Cell<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only one.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
