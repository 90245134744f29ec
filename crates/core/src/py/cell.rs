//! Cells that only one piece of code uses at a time, in whatever thread. Neither kind is held across a call into Python. A thread
//! takes a cell only while it is attached to Python, but may keep it while it is detached: the engine holds the loop's cell
//! while it waits without the GIL.
//!
//! Any other cell is free again after a few instructions, and a thread that finds it busy waits. The wait is detached: Python may
//! stop the thread that holds the cell (for the collector) until all others can be stopped, too.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::py::make::py_error;

/// The calling thread: a number other than 0 that no other living thread has, and that is even.
#[inline]
pub fn this_thread() -> usize {
    // SAFETY: may be called at any time. It is the address of the thread's descriptor.
    unsafe { libc::pthread_self() as usize }
}

/// A wait for another thread, by a thread that is attached to Python.
#[derive(Default)]
pub struct Waiting {
    rounds: u32,
    begun: Option<Instant>,
}

impl Waiting {
    /// How long is waited at most. No thread takes that long, unless two wait for each other within calls of the program's.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Rounds in which the thread does not even let go of its processor.
    const SPINS: u32 = 64;

    /// Lets the other thread go on. False: that was long enough.
    pub fn goes_on(&mut self) -> bool {
        if self.rounds < Self::SPINS {
            self.rounds += 1;
            std::hint::spin_loop();
            return true;
        }
        if self.begun.get_or_insert_with(Instant::now).elapsed() > Self::PATIENCE {
            return false;
        }
        // SAFETY: whoever uses a cell is called by Python, so the thread is attached. It attaches to the same state again, and
        // no code of Python's runs in between.
        unsafe {
            let state = ffi::PyEval_SaveThread();
            std::thread::yield_now();
            ffi::PyEval_RestoreThread(state);
        }
        true
    }
}

/// The error for a call in another thread than that which runs the loop.
pub fn used_elsewhere() -> PyErr {
    py_error::<PyRuntimeError>("Non-thread-safe operation: the event loop is in use by another thread")
}

struct Cell<T> {
    /// The thread that has the guard, or 0.
    holder: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: `holder` admits one guard at a time, so the value is only ever used by one thread at a time.
unsafe impl<T: Send> Sync for Cell<T> {}

impl<T> Cell<T> {
    fn new(value: T) -> Cell<T> {
        Cell {
            holder: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// The guard, or the thread that has it.
    #[inline]
    fn take(&self, thread: usize) -> Result<Guard<'_, T>, usize> {
        let holder = if cfg!(Py_GIL_DISABLED) {
            let taken = self
                .holder
                .compare_exchange(0, thread, Ordering::Acquire, Ordering::Relaxed);
            taken.unwrap_or_else(|holder| holder)
        } else {
            // The caller has the GIL, so no other thread is between these two steps. An atomic exchange costs 20 cycles, and a
            // message takes a dozen cells.
            let holder = self.holder.load(Ordering::Acquire);
            if holder == 0 {
                self.holder.store(thread, Ordering::Relaxed);
            }
            holder
        };
        // Lazily: a guard that is dropped frees the cell.
        if holder == 0 { Ok(Guard(self)) } else { Err(holder) }
    }

    /// As [`Cell::take`], when another thread has let go.
    #[cold]
    fn wait(&self, thread: usize) -> Option<Guard<'_, T>> {
        let mut waiting = Waiting::default();
        loop {
            match self.take(thread) {
                Ok(guard) => return Some(guard),
                Err(holder) if holder == thread || !waiting.goes_on() => return None,
                Err(_) => {}
            }
        }
    }
}

/// A cell of what belongs to a loop, for the thread that uses the loop. Another thread may only look at what is in it, holding no
/// other cell.
pub struct LoopCell<T>(Cell<T>);

impl<T> LoopCell<T> {
    pub fn new(value: T) -> LoopCell<T> {
        LoopCell(Cell::new(value))
    }

    /// The value, for as long as the guard lives.
    ///
    /// # Errors
    /// `RuntimeError` if this thread has it already, which is a bug.
    #[inline]
    pub fn get(&self) -> PyResult<Guard<'_, T>> {
        let thread = this_thread();
        match self.0.take(thread) {
            Ok(guard) => Ok(guard),
            Err(_) => self.0.wait(thread).ok_or_else(used_elsewhere),
        }
    }

    /// The value, if the cell is free at this moment.
    #[inline]
    pub fn if_free(&self) -> Option<Guard<'_, T>> {
        self.0.take(this_thread()).ok()
    }

    /// Whether this thread has the value.
    pub fn is_mine(&self) -> bool {
        self.0.holder.load(Ordering::Relaxed) == this_thread()
    }

    /// The value, if the cell is free. For the garbage collector, which can't wait: the thread that holds the cell may be
    /// stopped. Objects that the collector does not see here count as reachable.
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.if_free()
    }
}

/// A cell that any thread may use, for a few instructions at a time.
pub struct SharedCell<T>(Cell<T>);

impl<T> SharedCell<T> {
    pub fn new(value: T) -> SharedCell<T> {
        SharedCell(Cell::new(value))
    }

    /// The value, as soon as the cell is free. Without contention this costs one atomic operation; a mutex costs two.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        let thread = this_thread();
        match self.0.take(thread) {
            Ok(guard) => guard,
            Err(_) => self.contended(thread),
        }
    }

    #[cold]
    fn contended(&self, thread: usize) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.0.wait(thread) {
                return guard;
            }
        }
    }

    /// As [`LoopCell::look`].
    #[inline]
    pub fn look(&self) -> Option<Guard<'_, T>> {
        self.0.take(this_thread()).ok()
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
        self.0.holder.store(0, Ordering::Release);
    }
}
