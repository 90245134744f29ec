//! What the loop's thread holds while it talks to the engine: the engine, the ops in flight, and the completions
//! that wait to be dispatched.

use std::os::fd::RawFd;
use std::time::Duration;

use proact_driver::{
    Completion, Config, Driver, Engine, Flags, Op, Stats, Submitted, Token, Waker, explain, open, ops,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::asyncio::transport::datagram::inbox::Inbox;
use crate::py::bytes::copy_bytes;
use crate::py::make::py_os_error;
use crate::reactor::fds::Fds;
use crate::reactor::slots::{Slots, Target};
use crate::reactor::spare::Spare;

/// The most that pieces are joined to, in bytes: what asyncio's one receive takes.
const JOINED: usize = 256 * 1024;

/// How long closing waits for the kernel to let go of memory.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

pub struct Io {
    // The engine goes first: what the slots own must outlive it.
    pub driver: Box<dyn Driver>,
    pub slots: Slots<Target>,
    pub fds: Fds,
    pub spare: Spare,
    pub inbox: Inbox,
    batch: Vec<Completion>,
    next: usize,
}

/// Opens an engine.
///
/// # Errors
/// `OSError`, which says in one line why it can't be had.
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
            inbox: Inbox::default(),
            batch: Vec::new(),
            next: 0,
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

    /// As [`Driver::cancel`]: true if the op is over by this, and takes nothing any more.
    pub fn cancel(&mut self, token: Token) -> bool {
        self.driver.cancel(token)
    }

    /// Closes an fd that no op of ours uses any more. The peer sees it when this returns.
    pub fn close(&mut self, fd: RawFd) -> std::io::Result<()> {
        // SAFETY: a close points at no memory.
        unsafe { self.submit(Op::Close(ops::Close { fd }), Target::Nobody) };
        self.driver.flush()
    }

    /// A transport has ended: its fd is closed, unless it is no longer the transport's to close.
    pub fn give_up(&mut self, fd: RawFd, ours: bool) -> std::io::Result<()> {
        self.own(fd, false);
        if ours {
            return self.close(fd);
        }
        self.driver.forget(fd);
        Ok(())
    }

    /// A transport takes an fd over, or gives it up.
    pub fn own(&mut self, fd: RawFd, owns: bool) {
        self.fds.own(fd, owns);
    }

    /// An operation begins on the fd of an object. If that was another object's before, its socket was closed behind our
    /// back: operations that still wait under the number end, so that none of them takes what is not meant for it.
    ///
    /// # Errors
    /// False if the number is no open file.
    pub fn evict(&mut self, fd: RawFd, socket: *mut pyo3::ffi::PyObject) -> bool {
        let is_new = self.fds.is_new(fd, socket);
        if is_new == Some(true) {
            for token in self.slots.operations(|operation| operation.is_stale(fd, socket)) {
                self.cancel(token);
            }
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
        let outcome = self.driver.wait(timeout, &mut self.batch);
        if self.batch.len() > 1 {
            for completion in &self.batch {
                if completion.flags.contains(Flags::DATA) {
                    self.slots.count_piece(completion.token);
                }
            }
        }
        outcome
    }

    /// The next completion, whom it is for, and its bytes.
    ///
    /// # Errors
    /// `MemoryError` where there is no room for the bytes: they and the completion stay for the next call.
    #[inline]
    pub fn pop<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Arrived<'py>>> {
        while let Some(completion) = self.batch.get(self.next).copied() {
            let mut data = None;
            if completion.flags.contains(Flags::DATA) {
                data = Some(if self.slots.pieces(completion.token) > 1 {
                    self.join(py, completion.token)?
                } else {
                    let copied = copy_bytes(py, self.driver.data(&completion))?;
                    self.driver.release(&completion);
                    self.slots.set_pieces(completion.token, 0);
                    copied
                });
            }
            self.next += 1;
            let target = if completion.is_terminal() {
                self.slots.take(completion.token)
            } else {
                self.slots.peek(py, completion.token)
            };
            if let Some(target) = target {
                return Ok(Some(Arrived {
                    completion,
                    target,
                    data,
                }));
            }
        }
        Ok(None)
    }

    /// The next piece and those behind it on the same connection, as one: what was taken out of a socket is handed over
    /// whole, as what asyncio's one receive takes, before a protocol can say that it wants no more.
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

/// A completion on its way to whom it is for.
pub struct Arrived<'py> {
    pub completion: Completion,
    pub target: Target,
    pub data: Option<Bound<'py, PyBytes>>,
}

/// The engine of a loop that is closed: it refuses everything, and still knows what the real one counted.
pub struct Closed {
    engine: Engine,
    stats: Stats,
}

impl Closed {
    pub fn after(driver: &dyn Driver) -> Closed {
        Closed {
            engine: driver.engine(),
            stats: driver.stats().clone(),
        }
    }
}

impl Driver for Closed {
    fn engine(&self) -> Engine {
        self.engine
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

    fn shutdown(&mut self, _limit: Duration) -> usize {
        0
    }
}
