//! What the loop knows of an fd by its number: whether a transport has it, which object used it last, and the `sock_*`
//! operations that wait for it.
//!
//! Operations on one side of a socket go in their order: the first has its poll with the engine, the others line up until
//! that poll has ended, also where its operation was cancelled.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use pyo3::prelude::*;

use crate::reactor::operation::Operation;
use crate::reactor::watch::Side;

#[derive(Default)]
pub struct Fds(Vec<Record>);

#[derive(Default)]
struct Record {
    /// The address of the object that used the fd last, never followed.
    object: usize,
    owned: bool,
    /// Whether the last receive brought much: then there is more most likely.
    bulk: bool,
    /// By side: whether a poll is with the engine.
    polled: [bool; 2],
    /// Most fds never have a second operation on one side.
    line: Option<Box<[VecDeque<Py<Operation>>; 2]>>,
}

impl Fds {
    fn get(&mut self, fd: RawFd) -> Option<&mut Record> {
        usize::try_from(fd).ok().and_then(|index| self.0.get_mut(index))
    }

    /// The record of an open file. `None` for any other number: a table by numbers must not grow to whatever is asked for.
    fn open(&mut self, fd: RawFd) -> Option<&mut Record> {
        let index = usize::try_from(fd).ok()?;
        if self.0.len() <= index {
            if !is_open(fd) {
                return None;
            }
            self.0.resize_with(index + 1, Record::default);
        }
        self.0.get_mut(index)
    }

    /// A transport takes an fd over, or gives it up.
    pub fn own(&mut self, fd: RawFd, owns: bool) {
        let record = if owns { self.open(fd) } else { self.get(fd) };
        if let Some(record) = record {
            record.owned = owns;
        }
    }

    #[inline]
    pub fn is_owned(&self, fd: RawFd) -> bool {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.0.get(index))
            .is_some_and(|record| record.owned)
    }

    /// An object uses an fd: whether another one did so last. `None` for what is no open file.
    pub fn is_new(&mut self, fd: RawFd, object: *mut pyo3::ffi::PyObject) -> Option<bool> {
        let record = self.open(fd)?;
        Some(std::mem::replace(&mut record.object, object as usize) != object as usize)
    }

    /// Whether no operation is before one that begins.
    pub fn is_free(&mut self, fd: RawFd, side: Side) -> bool {
        self.get(fd).is_none_or(|record| {
            !record.polled[side as usize] && record.line_of(side).is_none_or(|line| line.is_empty())
        })
    }

    pub fn is_polled(&mut self, fd: RawFd, side: Side) -> bool {
        self.get(fd).is_some_and(|record| record.polled[side as usize])
    }

    pub fn set_polled(&mut self, fd: RawFd, side: Side, polled: bool) {
        if let Some(record) = self.get(fd) {
            record.polled[side as usize] = polled;
        }
    }

    pub fn is_bulk(&mut self, fd: RawFd) -> bool {
        self.get(fd).is_some_and(|record| record.bulk)
    }

    pub fn set_bulk(&mut self, fd: RawFd, bulk: bool) {
        if let Some(record) = self.get(fd) {
            record.bulk = bulk;
        }
    }

    /// Lines an operation up: behind the others, or, if its poll has ended already, in front of them.
    pub fn line_up(&mut self, fd: RawFd, side: Side, operation: Py<Operation>, in_front: bool) {
        let Some(record) = self.get(fd) else { return };
        let line = &mut record.line.get_or_insert_default()[side as usize];
        if in_front {
            line.push_front(operation);
        } else {
            line.push_back(operation);
        }
    }

    /// The operation whose turn it is.
    pub fn next(&mut self, fd: RawFd, side: Side) -> Option<Py<Operation>> {
        self.get(fd)?.line_of(side)?.pop_front()
    }

    /// An operation leaves the line.
    pub fn leave(&mut self, fd: RawFd, side: Side, operation: &Operation) -> Option<Py<Operation>> {
        let line = self.get(fd)?.line_of(side)?;
        let place = line.iter().position(|it| std::ptr::eq(it.get(), operation))?;
        line.remove(place)
    }

    /// Everybody in a line, for the collector.
    pub fn waiting(&self) -> impl Iterator<Item = &Py<Operation>> {
        let lines = self.0.iter().filter_map(|record| record.line.as_deref());
        lines.flatten().flatten()
    }
}

impl Record {
    fn line_of(&mut self, side: Side) -> Option<&mut VecDeque<Py<Operation>>> {
        self.line.as_mut().map(|line| &mut line[side as usize])
    }
}

/// Whether a number names an open file.
fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only reads the fd table.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}
