//! What the loop's thread holds while it uses the engine: the engine, the ops in flight, and the completions that wait to be
//! dispatched.

use std::any::Any;
use std::os::fd::RawFd;
use std::time::Duration;

use proact_driver::{
    Completion, Config, Driver, Engine, Flags, Op, Spin, Stats, Submitted, Token, Waker, explain, open, ops,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::bytes::copy_bytes;
use crate::py::make::py_os_error;
use crate::reactor::fds::{Fds, Side};
use crate::reactor::slots::Slots;
use crate::reactor::spare::Spare;
use crate::reactor::target::Target;

/// Pieces are joined up to this size, in bytes. asyncio receives as much at once.
const JOINED: usize = 256 * 1024;

/// How long closing waits until the kernel no longer uses the memory of ops.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// Values that the owners of one kind share in a loop, such as a buffer. There is one of each type, made on first use.
#[derive(Default)]
pub struct Shared(Vec<Box<dyn Any + Send>>);

impl Shared {
    pub fn get<T: Default + Send + 'static>(&mut self) -> &mut T {
        let known = self.0.iter().position(|it| it.is::<T>());
        let index = known.unwrap_or_else(|| {
            self.0.push(Box::new(T::default()));
            self.0.len() - 1
        });
        #[expect(clippy::unwrap_used, reason = "found or made by its type, above")]
        self.0[index].downcast_mut().unwrap()
    }
}

/// A completion, the target of its op, and its bytes.
pub type Popped<'py> = (Target, Completion, Option<Bound<'py, PyBytes>>);

pub struct Io {
    // The engine goes first: what the slots own must outlive it.
    pub driver: Box<dyn Driver>,
    pub slots: Slots<Target>,
    pub fds: Fds,
    pub spare: Spare,
    pub shared: Shared,
    /// How waits spin before they sleep, if they are asked to.
    pub spin: Option<Box<Spin>>,
    batch: Vec<Completion>,
    next: usize,
    /// Ops on files whose tasks this turn of the loop will run.
    pub files_ended: u32,
}

/// Opens an engine.
///
/// # Errors
/// `OSError`, whose message says in one line why the engine can't be used.
pub fn open_engine(engine: Engine, config: &Config) -> PyResult<Box<dyn Driver>> {
    open(engine, config).map_err(|error| {
        let message = format!(
            "the {} engine can't be had here: {}",
            engine.name(),
            explain(engine, &error)
        );
        py_os_error(error.raw_os_error().unwrap_or(libc::ENOSYS), message)
    })
}

/// What became of an op.
pub enum Sent {
    /// Done at once, with this result.
    Ready(i32),
    Pending(Token),
}

impl Io {
    pub fn new(driver: Box<dyn Driver>) -> Io {
        Io {
            driver,
            slots: Slots::default(),
            fds: Fds::default(),
            spare: Spare::default(),
            shared: Shared::default(),
            spin: None,
            batch: Vec::new(),
            next: 0,
            files_ended: 0,
        }
    }

    /// Hands an op to the engine.
    ///
    /// # Safety
    /// The memory that the op points at is owned by `target` and stays put until the terminal completion.
    pub unsafe fn submit(&mut self, op: Op, target: Target) -> Sent {
        let token = self.slots.insert(op.kind(), target);
        // SAFETY: passed on; the slot keeps the target until the terminal completion.
        match unsafe { self.driver.submit(token, op) } {
            Submitted::Ready(result) => {
                // The caller holds a reference of its own, so this frees nothing.
                self.slots.take(token);
                Sent::Ready(result)
            }
            Submitted::Pending => Sent::Pending(token),
        }
    }

    /// As [`Driver::cancel`]: true if this call has ended the op, so that it receives nothing any more.
    pub fn cancel(&mut self, token: Token) -> bool {
        self.driver.cancel(token)
    }

    /// Closes an fd that no op uses any more. The fd is closed when this returns.
    pub fn close(&mut self, fd: RawFd) -> std::io::Result<()> {
        // SAFETY: a close points at no memory.
        unsafe { self.submit(Op::Close(ops::Close { fd }), Target::nobody()) };
        self.driver.flush()
    }

    /// Ends a transport's use of an fd, and closes it if it still belongs to the transport.
    pub fn give_up(&mut self, fd: RawFd, ours: bool) -> std::io::Result<()> {
        self.own(fd, false);
        if ours {
            return self.close(fd);
        }
        self.driver.forget(fd);
        Ok(())
    }

    /// Records that a transport takes an fd over, or gives it up.
    pub fn own(&mut self, fd: RawFd, owns: bool) {
        self.fds.own(&mut *self.driver, fd, owns);
    }

    /// Cancels the operations that are polled for on an fd which the program is about to close.
    pub fn evict_all(&mut self, py: Python<'_>, fd: RawFd) {
        if self.fds.is_polled(fd, Side::Read) || self.fds.is_polled(fd, Side::Write) {
            self.cancel_others(py, fd, std::ptr::null_mut());
            // A poll in a ring holds the file open: the peer would not see the end, and the address would stay in use. What
            // fails here fails in the next wait, too, which tells it.
            let _failed = self.driver.flush();
        }
    }

    /// Cancels the operations that are polled for on an fd, but for those of one object.
    fn cancel_others(&mut self, py: Python<'_>, fd: RawFd, object: *mut ffi::PyObject) {
        let in_flight = self.slots.iter();
        let stale = in_flight.filter(|(_, target)| target.is_stale(py, fd, object));
        let stale: Vec<Token> = stale.map(|(token, _)| token).collect();
        for token in stale {
            self.cancel(token);
        }
    }

    /// Called when an operation begins on the fd of an object. If another object used this number before, its socket was
    /// closed without the loop's knowledge. Its operations, which still wait under the number, are cancelled so that none of
    /// them receives bytes of the new socket.
    ///
    /// # Errors
    /// False if the number is no open file.
    pub fn evict(&mut self, fd: RawFd, socket: &Bound<'_, PyAny>) -> bool {
        let is_new = self.fds.is_new(&mut *self.driver, fd, socket.as_ptr());
        if is_new == Some(true) {
            self.cancel_others(socket.py(), fd, socket.as_ptr());
        }
        is_new.is_some()
    }

    #[inline]
    pub fn is_owned(&self, fd: RawFd) -> bool {
        self.fds.is_owned(fd)
    }

    pub fn has_batch(&self) -> bool {
        self.next < self.batch.len()
    }

    pub fn wait(&mut self, timeout: Option<Duration>) -> std::io::Result<()> {
        debug_assert!(!self.has_batch());
        self.batch.clear();
        self.next = 0;
        let outcome = match &mut self.spin {
            Some(spin) if timeout != Some(Duration::ZERO) => {
                spin.wait(&mut *self.driver, timeout, &mut self.batch)
            }
            _ => self.driver.wait(timeout, &mut self.batch),
        };
        if self.batch.len() > 1 {
            for completion in &self.batch {
                if completion.flags.contains(Flags::DATA) {
                    self.slots.count_piece(completion.token);
                }
            }
        }
        outcome
    }

    /// As [`Io::wait`], without the GIL. A spin is a part of the wait, so other threads run meanwhile.
    pub fn wait_detached(&mut self, py: Python<'_>, timeout: Option<Duration>) -> std::io::Result<()> {
        let (outcome, spun) = py.detach(|| {
            let outcome = self.wait(timeout);
            (outcome, self.spin.as_ref().and_then(|spin| spin.ended()))
        });
        if let (Some(spun), Some(spin)) = (spun, &mut self.spin) {
            spin.resumed(spun.elapsed());
        }
        outcome
    }

    /// The next completion, its target, and its bytes.
    ///
    /// # Errors
    /// `MemoryError` if there is no memory for the bytes. They and the completion stay for the next call.
    #[inline]
    pub fn pop<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Popped<'py>>> {
        while let Some(completion) = self.batch.get(self.next).copied() {
            let mut data = None;
            if completion.flags.contains(Flags::DATA) {
                data = Some(if self.slots.pieces(completion.token) > 1 {
                    self.join(py, completion.token)?
                } else {
                    let copied = self.spare.copy(py, self.driver.data(&completion))?;
                    self.driver.release(&completion);
                    self.slots.set_pieces(completion.token, 0);
                    copied
                });
            }
            self.next += 1;
            let target = if completion.is_terminal() {
                self.slots.take(completion.token)
            } else {
                let target = self.slots.peek(completion.token);
                target.map(|target| target.clone_ref(py))
            };
            if let Some(target) = target {
                return Ok(Some((target, completion, data)));
            }
        }
        Ok(None)
    }

    /// As [`Io::pop`], if the next completion does no more than to end the wait of a greenlet.
    #[inline]
    pub fn pop_end(&mut self, py: Python<'_>) -> Option<(Target, Completion)> {
        let completion = self.batch.get(self.next).copied()?;
        let target = self.slots.peek(completion.token).filter(|target| target.ends())?;
        let target = target.clone_ref(py);
        self.next += 1;
        if completion.is_terminal() {
            // `target` is another reference, so this frees nothing.
            self.slots.take(completion.token);
        }
        Some((target, completion))
    }

    /// One attempt to receive at most `len` bytes from a socket; or the negative errno.
    ///
    /// # Errors
    /// `MemoryError`. Then nothing was received.
    pub fn receive<'py>(
        &mut self,
        py: Python<'py>,
        fd: RawFd,
        len: usize,
    ) -> PyResult<Result<Bound<'py, PyBytes>, i32>> {
        let Io { spare, driver, .. } = self;
        spare.receive(py, len, |buf, len| {
            let flags = 0;
            // SAFETY: `Spare` gives memory of `len` bytes, which is valid while this lasts.
            unsafe { driver.attempt(&Op::Recv(ops::Recv { fd, buf, len, flags })) }
        })
    }

    /// Whether more than `count` ops are in flight that somebody waits for.
    pub fn waits_for_more_than(&self, py: Python<'_>, count: usize) -> bool {
        let mut waited_for = self.slots.targets().filter(|target| !target.is_in_vain(py));
        self.slots.len() > count && waited_for.nth(count).is_some()
    }

    /// Joins the next piece with those of the same connection behind it. The engine has taken all of them from the socket
    /// already; as one piece they are delivered before the protocol can pause reading, as with asyncio's single receive.
    #[cold]
    fn join<'py>(&mut self, py: Python<'py>, token: Token) -> PyResult<Bound<'py, PyBytes>> {
        let mut joined = Vec::new();
        let mut parts = Vec::new();
        for (index, completion) in self.batch.iter().enumerate().skip(self.next) {
            if completion.token != token || !completion.flags.contains(Flags::DATA) {
                continue;
            }
            let piece = self.driver.data(completion);
            if !parts.is_empty() && joined.len() + piece.len() > JOINED {
                break;
            }
            joined.extend_from_slice(piece);
            parts.push(index);
        }
        let bytes = copy_bytes(py, &joined)?;
        let left = self.slots.pieces(token).saturating_sub(parts.len() as u32);
        self.slots.set_pieces(token, left);
        for index in parts {
            let dealt_with = Completion::terminal(0, 0);
            let completion = if index == self.next {
                self.batch[index]
            } else {
                // No slot has this token.
                std::mem::replace(&mut self.batch[index], dealt_with)
            };
            self.driver.release(&completion);
        }
        Ok(bytes)
    }
}

/// The engine of a closed loop. It refuses every op, and keeps the statistics of the engine that it replaces.
pub struct Closed {
    name: &'static str,
    stats: Stats,
}

impl Closed {
    pub fn after(driver: &dyn Driver) -> Closed {
        Closed {
            name: driver.name(),
            stats: driver.stats().clone(),
        }
    }
}

impl Driver for Closed {
    fn name(&self) -> &'static str {
        self.name
    }

    unsafe fn submit(&mut self, _token: Token, _op: Op) -> Submitted {
        Submitted::Ready(-libc::ECANCELED)
    }

    fn cancel(&mut self, _token: Token) -> bool {
        false
    }

    fn wait(&mut self, _timeout: Option<Duration>, _batch: &mut Vec<Completion>) -> std::io::Result<()> {
        Err(std::io::Error::from_raw_os_error(libc::EBADF))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn has_work(&self) -> Option<bool> {
        Some(false)
    }

    fn data(&self, _completion: &Completion) -> &[u8] {
        &[]
    }

    fn release(&mut self, _completion: &Completion) {}

    fn waker(&self) -> Waker {
        Waker::detached()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn shutdown(&mut self, _limit: Duration) -> usize {
        0
    }
}
