//! Cells that only one piece of code uses at a time, in whatever thread. Neither kind is held across a call into Python. A thread
//! takes a cell only while it is attached to the interpreter, but may keep it while it is detached: the engine holds the loop's
//! cell while it waits without the GIL.
//!
//! A [`LoopCell`] belongs to the loop, and the loop's thread uses it. A busy one is a bug: a program that uses it from another
//! thread gets an exception, not undefined behaviour, and so does code that is re-entered while it holds the cell. A
//! [`SharedCell`] may be used by any thread, for a few instructions at a time. A thread that finds it busy waits.

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
        let was_busy = if cfg!(Py_GIL_DISABLED) {
            self.busy.swap(true, Ordering::Acquire)
        } else {
            // The caller has the GIL, so no other thread is between these two steps. An atomic exchange costs 20 cycles, and a
            // message takes a dozen cells.
            let busy = self.busy.load(Ordering::Acquire);
            self.busy.store(true, Ordering::Relaxed);
            busy
        };
        // Lazily: a guard that is dropped frees the cell.
        (!was_busy).then(|| Guard(self))
    }
}

/// A cell of the loop's.
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

    /// The value, if the cell is free. For finalisers: they run in any thread, and what they can't do at once they leave to
    /// the loop's thread.
    #[inline]
    pub fn if_free(&self) -> Option<Guard<'_, T>> {
        self.0.take()
    }

    /// The value, if the cell is free. For the garbage collector, which can't wait: the thread that holds the cell may be
    /// stopped. Objects that the collector does not see here count as reachable.
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.0.take()
    }
}

/// A cell that any thread may use.
pub struct SharedCell<T>(Cell<T>);

impl<T> SharedCell<T> {
    pub fn new(value: T) -> SharedCell<T> {
        SharedCell(Cell::new(value))
    }

    /// The value, as soon as the cell is free. Without contention this costs one atomic operation; a mutex costs two.
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
