//! `proact.Ring`: io_uring without a loop. The program submits operations and takes completions.
//!
//! Owns one io_uring engine and what its ops in flight keep alive: a slot holds the file and the exported buffer of an
//! op until its terminal completion is here. Knows nothing of tasks, callbacks or other engines. What can be asked of a ring
//! is in `ring/operations.rs`.

mod operations;

use std::os::fd::RawFd;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use proact_driver::{
    Completion as Completed, Config, Driver, Engine, Generation, Op, OpKind, Submitted, Token,
};
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::buffer::Buffer;
use crate::py::cell::LoopCell;
use crate::py::descriptor::descriptor;
use crate::py::errno::io_error;
use crate::py::make::{Int, Text, list, py_error};
use crate::reactor::io::{SHUTDOWN_LIMIT, open_engine};
use crate::reactor::slots::Slots;

/// The kernel's limit of entries (IORING_MAX_ENTRIES).
const MOST_ENTRIES: u32 = 32_768;

/// The end of one operation.
#[pyclass(frozen, module = "proact._core")]
pub struct Completion {
    token: Token,
    result: i32,
    /// The object that was given with the operation.
    #[pyo3(get)]
    data: Option<Py<PyAny>>,
}

#[pymethods]
impl Completion {
    /// What submitting the operation returned.
    #[getter]
    fn token(&self) -> Int {
        Int::new(self.token)
    }

    /// As the system call's: a count of bytes, a new fd, events, or 0; a failure is the negative errno.
    #[getter]
    fn result(&self) -> Int {
        Int::new(self.result)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<Text<String>> {
        let data = match &self.data {
            Some(data) => data.bind(py).repr()?.to_string(),
            None => "None".into(),
        };
        Ok(Text(format!(
            "Completion(token={}, result={}, data={data})",
            self.token, self.result
        )))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.data)
    }
}

/// What an op in flight keeps alive.
struct Held {
    file: Py<PyAny>,
    /// Keeps the buffer exported, so that its memory is neither moved nor freed.
    _buffer: Option<Buffer>,
    data: Option<Py<PyAny>>,
}

struct Inner {
    // The engine goes first: what the slots hold must outlive it.
    driver: Box<dyn Driver>,
    slots: Slots<Held>,
    /// Completions that nobody has taken yet.
    done: Vec<Completed>,
    batch: Vec<Completed>,
}

impl Inner {
    fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()> {
        let outcome = self.driver.wait(timeout, &mut self.batch);
        self.done.append(&mut self.batch);
        outcome
    }

    /// Ends all ops, and returns how many the kernel still uses after that.
    fn end(&mut self) -> usize {
        // Collect what has completed, so that its connections are closed below. An error would come from the shutdown as well.
        let _ = self.wait(Some(Duration::ZERO));
        let left = self.driver.shutdown(SHUTDOWN_LIMIT);
        for completed in std::mem::take(&mut self.done) {
            if completed.result >= 0 && self.slots.kind(completed.token) == Some(OpKind::Accept) {
                // SAFETY: a connection that the kernel made for us and that nobody has been told of.
                unsafe { libc::close(completed.result) };
            }
        }
        left
    }

    /// Closes the ring, then frees what its ops held. If ops are `left`, the kernel may still use their memory, which is
    /// leaked.
    fn let_go(self, left: usize) {
        let Inner {
            driver, mut slots, ..
        } = self;
        drop(driver);
        let held = slots.drain();
        if left > 0 {
            std::mem::forget(held);
        }
    }
}

/// One io_uring: operations go in, completions come out, and nothing else happens.
///
/// `entries` is the size of the submission queue (1 to 32768; the kernel rounds it up to a power of two); more
/// operations than that may be in flight. Linux 5.6 or later, and only io_uring: where the kernel refuses it, OSError
/// gives the reason that `proact doctor` gives.
///
/// An operation is queued by its method, which returns a token (an int), and handed over by `submit` or `wait`. `wait`
/// returns its `Completion`: the token, the result (negative: an errno), and the `data` that it was given. What can't be
/// done is a result too: a number that is no open file completes with -EBADF. `fd` is a number, or an object with
/// `fileno()`, which is kept alive.
///
/// A buffer belongs to the ring until the operation's completion has been returned: it is exported (a bytearray can't be
/// resized) and should neither be read nor changed. A file is not to be closed while the ring uses it: cancel, wait for
/// the completion, then close. Operations in flight on one fd may be carried out in any order.
///
/// A ring belongs to the thread and to the process that made it. Its methods raise ValueError once it is closed,
/// RuntimeError in another thread or in a forked child (which may `close` its copy), OSError for what the kernel says of
/// the ring as a whole.
#[pyclass(frozen, module = "proact._core")]
pub struct Ring {
    inner: LoopCell<Option<Inner>>,
    owner: ThreadId,
    generation: Generation,
}

impl Ring {
    /// # Errors
    /// `RuntimeError` in another thread than the ring's.
    fn check_thread(&self) -> PyResult<()> {
        if self.is_ours() {
            return Ok(());
        }
        Err(py_error::<PyRuntimeError>("this ring belongs to another thread"))
    }

    fn is_ours(&self) -> bool {
        self.owner == std::thread::current().id()
    }

    /// Runs `body`, which must not call into Python, on an open ring of this thread.
    fn with<R>(&self, body: impl FnOnce(&mut Inner) -> R) -> PyResult<R> {
        if !self.generation.is_current() {
            return Err(py_error::<PyRuntimeError>(
                "this ring belongs to the parent process; a forked child must make a ring of its own",
            ));
        }
        self.check_thread()?;
        match &mut *self.inner.get()? {
            Some(inner) => Ok(body(inner)),
            None => Err(py_error::<PyValueError>("the ring is closed")),
        }
    }

    /// Queues an op on `file`: `op` makes it of the fd and the buffer's address and length.
    ///
    /// # Safety
    /// The op points at nothing but that buffer.
    unsafe fn queue(
        &self,
        file: Bound<'_, PyAny>,
        buffer: Option<Buffer>,
        data: Option<Py<PyAny>>,
        op: impl FnOnce(RawFd, *mut u8, usize) -> Op,
    ) -> PyResult<Int> {
        let (address, len) = match &buffer {
            Some(buffer) => (buffer.ptr(), buffer.len()),
            None => (std::ptr::null_mut(), 0),
        };
        let op = op(descriptor(&file)?, address, len);
        let held = Held {
            file: file.unbind(),
            _buffer: buffer,
            data,
        };
        self.with(|inner| {
            let token = inner.slots.insert(op.kind(), held);
            // SAFETY: the buffer is exported, and the slot holds it until the terminal completion.
            if let Submitted::Ready(result) = unsafe { inner.driver.submit(token, op) } {
                inner.done.push(Completed::terminal(token, result));
            }
            Int::new(token)
        })
    }

    /// Drops everything, on any thread. In another thread the kernel can't be made to end the ops at once. In a forked child
    /// it has nothing of this process to write to.
    fn abandon(&self) {
        let Some(Some(mut inner)) = self.inner.if_free().map(|mut inner| inner.take()) else {
            return;
        };
        let left = match (self.generation.is_current(), self.is_ours()) {
            (false, _) => 0,
            (true, true) => inner.end(),
            (true, false) => inner.driver.stats().in_flight,
        };
        inner.let_go(left);
    }
}

#[pymethods]
impl Ring {
    #[new]
    #[pyo3(signature = (entries = 256))]
    fn new(entries: u32) -> PyResult<Ring> {
        if !(1..=MOST_ENTRIES).contains(&entries) {
            return Err(py_error::<PyValueError>(format!(
                "entries must be 1 to {MOST_ENTRIES}"
            )));
        }
        let config = Config {
            entries,
            // For receives into buffers that the kernel chooses, which there are none of here.
            buffers: 1,
            max_buffers: 1,
            ..Config::default()
        };
        let mut inner = Inner {
            driver: open_engine(Engine::IoUring, &config)?,
            slots: Slots::default(),
            done: Vec::new(),
            batch: Vec::new(),
        };
        // Binds it to this thread, so that `submit` can hand over before the first wait.
        inner.wait(Some(Duration::ZERO)).map_err(io_error)?;
        Ok(Ring {
            inner: LoopCell::new(Some(inner)),
            owner: std::thread::current().id(),
            generation: Generation::current(),
        })
    }

    /// Asks for an operation to end. Its completion follows in any case: with -ECANCELED, or with what it did before
    /// the cancel reached it. A token that is not in flight is ignored.
    fn cancel(&self, token: Token) -> PyResult<()> {
        self.with(|inner| {
            inner.driver.cancel(token);
        })
    }

    /// Hands over what is queued, in one system call, without waiting.
    fn submit(&self, py: Python<'_>) -> PyResult<()> {
        self.with(|inner| py.detach(|| inner.driver.flush()))?
            .map_err(io_error)
    }

    /// Hands over what is queued, waits without the GIL until `at_least` operations have completed (or all, if fewer are
    /// in flight) or `timeout` seconds are over (None: for as long as it takes), and returns all completions that are
    /// there: with nothing in flight, none. `at_least` 0 does not wait.
    ///
    /// Signal handlers run meanwhile; if one raises, no completion is lost: the next wait returns them.
    #[pyo3(signature = (timeout = None, at_least = 1))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>, at_least: usize) -> PyResult<Py<PyAny>> {
        let deadline = match timeout.map(Duration::try_from_secs_f64) {
            // A time that no clock will show is none.
            Some(Ok(timeout)) => Instant::now().checked_add(timeout),
            Some(Err(_)) => return Err(py_error::<PyValueError>("timeout must be 0 or more seconds")),
            None => None,
        };
        loop {
            let is_over = self.with(|inner| {
                let wanted = at_least.min(inner.slots.len());
                let timeout = if inner.done.len() >= wanted {
                    Some(Duration::ZERO)
                } else {
                    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
                };
                py.detach(|| inner.wait(timeout))
                    .map(|()| inner.done.len() >= wanted || timeout == Some(Duration::ZERO))
            })?;
            let is_over = is_over.map_err(io_error)?;
            py.check_signals()?;
            if is_over {
                break;
            }
        }
        let finished: Vec<(Completed, Held)> = self.with(|inner| {
            let Inner { done, slots, .. } = inner;
            done.drain(..)
                .filter_map(|completed| Some((completed, slots.take(completed.token)?)))
                .collect()
        })?;
        let completion = |(completed, held): (Completed, Held)| {
            let completion = Completion {
                token: completed.token,
                result: completed.result,
                data: held.data,
            };
            Ok(Bound::new(py, completion)?.into_any())
        };
        let completions = finished.into_iter().map(completion);
        list(py, &completions.collect::<PyResult<Vec<_>>>()?).map(Bound::unbind)
    }

    /// How many operations are queued, under way, or completed and not returned by `wait` yet.
    #[getter]
    fn in_flight(&self) -> PyResult<Int> {
        self.with(|inner| Int::new(inner.slots.len()))
    }

    /// Cancels what is in flight, waits until the kernel has let go of its buffers, then frees these and closes the
    /// ring. Completions that were not taken are gone; connections in them are closed. What the kernel does not end
    /// within 2 seconds (a read of a dead disk) keeps its memory for ever. Closing again does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check_thread()?;
        let Some(mut inner) = self.inner.get()?.take() else {
            return Ok(());
        };
        let left = if self.generation.is_current() {
            py.detach(|| inner.end())
        } else {
            0
        };
        inner.let_go(left);
        Ok(())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_details))]
    fn __exit__(&self, py: Python<'_>, _details: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(inner) = self.inner.look().as_deref().and_then(Option::as_ref) {
            for held in inner.slots.targets() {
                visit.call(&held.file)?;
                visit.call(&held.data)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.abandon();
    }
}

impl Drop for Ring {
    /// A ring that nobody closed.
    fn drop(&mut self) {
        self.abandon();
    }
}
