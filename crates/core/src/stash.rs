//! What `sock_recv` keeps: bytes that arrived for a receive that was cancelled meanwhile, and its buffers.
//!
//! A cancel can lose the race against the data. The bytes are kept for the next receive on the same socket, so that a
//! timeout around `sock_recv` loses nothing. "The same socket" is the same fd and the same inode: the number alone may
//! by then name another socket.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::call::{shorten, uninit_bytes};
use crate::operation::Operation;

#[derive(Default)]
pub struct Stash(HashMap<RawFd, Kept>);

/// Cancelled receives whose terminal completion is still to come, by fd, and the receives that wait for it: what such a
/// one may yet have taken from the socket comes before whatever the next would take.
#[derive(Default)]
pub struct Leaving(HashMap<RawFd, (usize, Vec<Py<Operation>>)>);

impl Leaving {
    pub fn begin(&mut self, fd: RawFd) {
        self.0.entry(fd).or_default().0 += 1;
    }

    /// Whoever waited, when the last has gone.
    pub fn end(&mut self, fd: RawFd) -> Vec<Py<Operation>> {
        match self.0.get_mut(&fd) {
            Some((count, _)) if *count > 1 => *count -= 1,
            Some(_) => return self.0.remove(&fd).map(|(_, heirs)| heirs).unwrap_or_default(),
            None => {}
        }
        Vec::new()
    }

    /// Who waits, for the collector.
    pub fn waiting(&self) -> impl Iterator<Item = &Py<Operation>> {
        self.0.values().flat_map(|(_, heirs)| heirs)
    }

    /// The list to wait in, if there is somebody to wait for.
    #[inline]
    pub fn heirs(&mut self, fd: RawFd) -> Option<&mut Vec<Py<Operation>>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get_mut(&fd).map(|(_, heirs)| heirs)
    }
}

struct Kept {
    inode: u64,
    bytes: VecDeque<u8>,
}

/// The inode of what an fd names now.
fn inode(fd: RawFd) -> Option<u64> {
    // SAFETY: zeros are a value of struct stat.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a local struct.
    (unsafe { libc::fstat(fd, &raw mut status) } == 0).then_some(status.st_ino)
}

impl Stash {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn keep(&mut self, fd: RawFd, bytes: &[u8], first: bool) {
        let Some(inode) = inode(fd) else { return };
        let kept = self.0.entry(fd).or_insert_with(|| Kept {
            inode,
            bytes: VecDeque::new(),
        });
        if kept.inode != inode {
            *kept = Kept {
                inode,
                bytes: VecDeque::new(),
            };
        }
        if first {
            // Taken from here, or from the socket, before all that is here now.
            bytes.iter().rev().for_each(|byte| kept.bytes.push_front(*byte));
        } else {
            kept.bytes.extend(bytes);
        }
    }

    /// At most `len` bytes that are kept for this socket, oldest first.
    pub fn take(&mut self, fd: RawFd, len: usize) -> Option<Vec<u8>> {
        let kept = self.0.get_mut(&fd)?;
        if inode(fd) != Some(kept.inode) {
            self.0.remove(&fd);
            return None;
        }
        let count = len.min(kept.bytes.len());
        let bytes = kept.bytes.drain(..count).collect();
        if kept.bytes.is_empty() {
            self.0.remove(&fd);
        }
        Some(bytes)
    }
}

/// Buffers of this many bytes and more are used again, up to so many bytes of them in all.
const WORTH_KEEPING: usize = 4096;
const KEPT: usize = 4 << 20;

/// Buffers that received little: what came was copied out, and the next receive of that size has them.
#[derive(Default)]
pub struct Buffers {
    len: usize,
    spare: Vec<Py<PyBytes>>,
}

impl Buffers {
    /// A `bytes` of `len` bytes to receive into.
    pub fn take(&mut self, py: Python<'_>, len: usize) -> PyResult<Py<PyBytes>> {
        if self.len == len
            && let Some(bytes) = self.spare.pop()
        {
            return Ok(bytes);
        }
        uninit_bytes(py, len).map(Bound::unbind)
    }

    /// The first `count` bytes of what was taken, as the object that the program gets.
    pub fn settle(&mut self, bytes: Bound<'_, PyBytes>, count: usize) -> PyResult<Py<PyBytes>> {
        let len = bytes.as_bytes().len();
        if len < WORTH_KEEPING || count > len / 4 {
            return shorten(bytes, count).map(Bound::unbind);
        }
        let received = PyBytes::new(bytes.py(), &bytes.as_bytes()[..count]).unbind();
        if self.len != len {
            self.spare.clear();
            self.len = len;
        }
        if (self.spare.len() + 1) * len <= KEPT {
            self.spare.push(bytes.unbind());
        }
        Ok(received)
    }
}
