//! Bytes that arrived for a receive that was cancelled meanwhile.
//!
//! A cancel can lose the race against the data. The bytes are kept for the next receive on the same socket, so that a
//! timeout around `sock_recv` loses nothing. "The same socket" is the same fd and the same inode: the number alone may
//! by then name another socket.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

#[derive(Default)]
pub struct Stash(HashMap<RawFd, Kept>);

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

    pub fn keep(&mut self, fd: RawFd, bytes: &[u8]) {
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
        kept.bytes.extend(bytes);
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
