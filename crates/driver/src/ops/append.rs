//! An append to a file by its path: open, write, flush and close in one go of a thread.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::file::WriteFsync;
use super::operation::{Course, Facts, NO_FILE, Operation};
use super::path::OpenAt;
use crate::syscalls::{self, AGAIN, file_type};

/// Append all of a buffer to a regular file that there is, and flush the file to storage.
///
/// The result is the number of bytes written, and `failure` gets 0 if the file was flushed, or else what came before. A negative result means that
/// the file could not be opened, or is not regular; then nothing was written.
#[derive(Clone, Copy, Debug)]
pub struct AppendFsync {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub buf: *const u8,
    /// What one write may transfer, at most (write(2), "NOTES").
    pub len: usize,
    pub failure: *mut i32,
}

impl AppendFsync {
    fn open(&self) -> OpenAt {
        OpenAt {
            dir: self.dir,
            path: self.path,
            // If a FIFO has taken the file's place, the open does not wait for a reader.
            flags: libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOCTTY,
            mode: 0,
            waits: false,
        }
    }
}

impl Operation for AppendFsync {
    const FACTS: Facts = Facts {
        punted: true,
        pooled: true,
        ..Facts::new("append_fsync", ("openat", opcode::OpenAt::CODE))
    };

    const SAMPLE: Self = AppendFsync {
        dir: NO_FILE,
        path: std::ptr::null(),
        buf: std::ptr::null(),
        len: 1,
        failure: std::ptr::null_mut(),
    };

    fn course(&self) -> Course {
        Course::Blocking([self.dir, -1])
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::OpenAt::new(types::Fd(self.dir), self.path).build()
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    unsafe fn block(&self) -> i32 {
        // An open would be noticed by the peer of a FIFO, and may wind a tape.
        // SAFETY: the caller's contract.
        let kind = unsafe { syscalls::file_type_at(self.dir, self.path) };
        if kind != libc::S_IFREG as i32 {
            return if kind < 0 { kind } else { -libc::EINVAL };
        }
        // SAFETY: the caller's contract.
        let fd = unsafe { self.open().block() };
        if fd < 0 {
            return fd;
        }
        // SAFETY: a fresh fd that nobody else owns.
        let _file = unsafe { OwnedFd::from_raw_fd(fd) };
        if file_type(fd) != libc::S_IFREG as i32 {
            return -libc::EINVAL;
        }
        let write = WriteFsync {
            fd,
            buf: self.buf,
            len: self.len,
            offset: -1,
            data_only: false,
            failure: self.failure,
        };
        // SAFETY: the caller's contract.
        let result = unsafe { write.block() };
        if result < 0 {
            // SAFETY: the caller's contract: room for a number.
            unsafe { self.failure.write(result) };
        }
        result.max(0)
    }
}
