//! A cell that one piece of code uses at a time, whoever asks.
//!
//! The loop's state is used by the loop's thread. Another thread that reaches for it (an error of the program, but one
//! that Python permits) must meet an exception, not undefined behaviour, and so must code that is re-entered while it
//! holds the cell. The GIL is not relied upon: the engine's wait holds the cell without it.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::py::make::py_error;

pub struct LoopCell<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `busy` admits one guard at a time, so the value is only ever used by one thread at a time.
unsafe impl<T: Send> Sync for LoopCell<T> {}

impl<T> LoopCell<T> {
    pub fn new(value: T) -> LoopCell<T> {
        LoopCell {
            busy: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, for as long as the guard lives. No guard is held across a call into Python.
    ///
    /// # Errors
    /// `RuntimeError` while somebody else has it.
    #[inline]
    pub fn get(&self) -> PyResult<Guard<'_, T>> {
        self.try_get().ok_or_else(|| {
            py_error::<PyRuntimeError>(
                "Non-thread-safe operation: the event loop is in use by another thread",
            )
        })
    }

    /// The value, as soon as whoever has it lets go: for cells that are held for a few instructions at a time. Uncontended
    /// it costs one atomic operation, where a mutex costs two.
    #[inline]
    pub fn wait(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.try_get() {
                return guard;
            }
            std::thread::yield_now();
        }
    }

    #[inline]
    pub fn try_get(&self) -> Option<Guard<'_, T>> {
        if self.busy.swap(true, Ordering::Acquire) {
            None
        } else {
            Some(Guard(self))
        }
    }
}

impl<T> LoopCell<T> {
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
        unsafe { &mut *self.value.get() }
    }
}

pub struct Guard<'a, T>(&'a LoopCell<T>);

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
