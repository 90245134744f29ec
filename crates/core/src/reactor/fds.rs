//! What the loop knows about an fd number: whether it belongs to a transport, which object used it last, and which `sock_*`
//! operations wait for it.
//!
//! Operations on one side of a socket are carried out in order. The engine polls for the first one, and the others wait in a
//! line until that poll has ended, even if its operation was cancelled.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use proact_driver::{Call, Driver, Pages};
use pyo3::prelude::*;

use crate::py::method::Method;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Read,
    Write,
}

impl Side {
    pub fn of(write: bool) -> Side {
        if write { Side::Write } else { Side::Read }
    }

    pub fn events(self) -> u32 {
        match self {
            Side::Read => libc::POLLIN as u32,
            Side::Write => libc::POLLOUT as u32,
        }
    }
}

/// An operation in the line. The call is made when its turn comes: it asks the engine to poll, and returns whether it did.
pub type Waiting = Method<bool>;

#[derive(Default)]
pub struct Fds(Pages<Record>);

#[derive(Default)]
struct Record {
    /// The address of the object that used the fd last. It is compared, and never dereferenced.
    object: usize,
    owned: bool,
    /// Whether the last receive returned many bytes: then more bytes are probably there already.
    bulk: bool,
    /// For each side, whether a poll is in flight.
    polled: [bool; 2],
    /// `None` until a second operation comes to one side, which is rare.
    line: Option<Box<[VecDeque<Waiting>; 2]>>,
}

impl Fds {
    fn get(&mut self, fd: RawFd) -> Option<&mut Record> {
        usize::try_from(fd).ok().and_then(|index| self.0.get_mut(index))
    }

    /// The record of an open file. `None` for any other number: a program may ask for a huge one, and the table must not grow
    /// to it.
    fn open(&mut self, driver: &mut dyn Driver, fd: RawFd) -> Option<&mut Record> {
        let index = usize::try_from(fd).ok()?;
        if self.0.len() <= index {
            if driver.call(Call::IsOpen { fd }) < 0 {
                return None;
            }
            self.0.reach(index);
        }
        self.0.get_mut(index)
    }

    /// Records that a transport takes an fd over, or gives it up.
    pub fn own(&mut self, driver: &mut dyn Driver, fd: RawFd, owns: bool) {
        let record = if owns { self.open(driver, fd) } else { self.get(fd) };
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

    /// Records that an object uses an fd. Returns whether another object used it last, or `None` if the number is no open
    /// file.
    pub fn is_new(
        &mut self,
        driver: &mut dyn Driver,
        fd: RawFd,
        object: *mut pyo3::ffi::PyObject,
    ) -> Option<bool> {
        let record = self.open(driver, fd)?;
        Some(std::mem::replace(&mut record.object, object as usize) != object as usize)
    }

    /// Whether a new operation can begin at once: no other operation is in flight or in the line.
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

    /// Puts an operation into the line: at its end, or in front if the operation has been polled for before.
    pub fn line_up(&mut self, fd: RawFd, side: Side, operation: Waiting, in_front: bool) {
        let Some(record) = self.get(fd) else { return };
        let line = &mut record.line.get_or_insert_default()[side as usize];
        if in_front {
            line.push_front(operation);
        } else {
            line.push_back(operation);
        }
    }

    /// Removes the first operation of the line.
    pub fn next(&mut self, fd: RawFd, side: Side) -> Option<Waiting> {
        self.get(fd)?.line_of(side)?.pop_front()
    }

    /// Removes an operation from the line.
    pub fn leave(&mut self, fd: RawFd, side: Side, operation: &Bound<'_, PyAny>) -> Option<Waiting> {
        let line = self.get(fd)?.line_of(side)?;
        let place = line.iter().position(|it| it.object().is(operation))?;
        line.remove(place)
    }

    /// All operations in lines, for the collector.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        let lines = self.0.iter().filter_map(|record| record.line.as_deref());
        lines.flatten().flatten()
    }
}

impl Record {
    fn line_of(&mut self, side: Side) -> Option<&mut VecDeque<Waiting>> {
        self.line.as_mut().map(|line| &mut line[side as usize])
    }
}
