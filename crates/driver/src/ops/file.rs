//! Ops that read, write and flush files: regular files at an offset, and files of all kinds at their current
//! position.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, NO_FILE, Operation, blocking, clamp};
use crate::by_number;
use crate::syscalls::{AGAIN, check, file_type, poll_now, retry};

/// linux/magic.h
const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Read. An `offset` of -1 means the current position (pipes, ttys, sockets).
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub fd: RawFd,
    pub buf: *mut u8,
    pub len: usize,
    pub offset: i64,
}

/// Write. `offset` is as in [`Read`].
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub fd: RawFd,
    pub buf: *const u8,
    pub len: usize,
    pub offset: i64,
}

/// Scatter read. `offset` is as in [`Read`].
#[derive(Clone, Copy, Debug)]
pub struct Readv {
    pub fd: RawFd,
    pub iov: *const libc::iovec,
    pub count: u32,
    pub offset: i64,
}

/// Gather write. `offset` is as in [`Read`].
#[derive(Clone, Copy, Debug)]
pub struct Writev {
    pub fd: RawFd,
    pub iov: *const libc::iovec,
    pub count: u32,
    pub offset: i64,
}

/// Flush a file to storage. With `data_only` its metadata is not flushed (fdatasync(2)).
#[derive(Clone, Copy, Debug)]
pub struct Fsync {
    pub fd: RawFd,
    pub data_only: bool,
}

/// Write all of a buffer and flush the file to storage, in one go of a thread: a write and an [`Fsync`] after it would be two. The result
/// is the number of bytes written. If that is not 0, `failure` gets 0 if the file was flushed, or else the error that came before.
#[derive(Clone, Copy, Debug)]
pub struct WriteFsync {
    pub fd: RawFd,
    pub buf: *const u8,
    /// What one write may transfer, at most (write(2), "NOTES").
    pub len: usize,
    pub offset: i64,
    pub data_only: bool,
    pub failure: *mut i32,
}

/// Cut a file to a length, or extend it with a hole.
#[derive(Clone, Copy, Debug)]
pub struct Truncate {
    pub fd: RawFd,
    pub len: i64,
}

/// Allocate, zero or free a range of a file, as `fallocate(2)` does.
#[derive(Clone, Copy, Debug)]
pub struct Allocate {
    pub fd: RawFd,
    pub mode: i32,
    pub offset: i64,
    pub len: i64,
}

/// The memory that a transfer reads or writes.
enum Memory {
    One(libc::iovec),
    Many(*const libc::iovec, u32),
}

/// What read, write, readv and writev have in common.
struct Transfer {
    fd: RawFd,
    direction: Direction,
    memory: Memory,
    offset: i64,
}

impl Transfer {
    fn course(&self) -> Course {
        if self.offset == -1 {
            Course::File(self.fd, self.direction)
        } else {
            Course::Blocking([self.fd, -1])
        }
    }

    fn vectors(&self) -> (*const libc::iovec, i32) {
        match &self.memory {
            Memory::One(vector) => (vector, 1),
            Memory::Many(vectors, count) => (*vectors, *count as i32),
        }
    }

    /// Transfers what needs no wait: at an offset, what is in the page cache (of a file that was opened without `O_DIRECT`);
    /// `AGAIN` if that is nothing, or if the file system does not know. At the current position a regular file does wait for
    /// its disk.
    ///
    /// # Safety
    /// The memory of the transfer is valid.
    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        let (fd, offset, (iov, count)) = (self.fd, self.offset, self.vectors());
        let result = retry(calls, || {
            // SAFETY: the caller's contract.
            check(unsafe {
                match self.direction {
                    Direction::Read => by_number::preadv2(fd, iov, count, offset, libc::RWF_NOWAIT),
                    Direction::Write => by_number::pwritev2(fd, iov, count, offset, libc::RWF_NOWAIT),
                }
            })
        });
        match -result {
            libc::EOPNOTSUPP
                if offset != -1 && self.direction == Direction::Read && is_in_memory(calls, fd) => {}
            libc::EAGAIN | libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM if offset != -1 => return AGAIN,
            libc::EAGAIN => {
                *calls += 1;
                if file_type(fd) != libc::S_IFREG as i32 {
                    return AGAIN;
                }
            }
            // The file does not support RWF_NOWAIT (a tty; a pipe before Linux 6.4).
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM => {
                *calls += 1;
                let events = poll_now(fd, self.direction.event());
                if events <= 0 {
                    return events;
                }
            }
            _ => return result,
        }
        // SAFETY: the caller's contract.
        unsafe { self.block(calls) }
    }

    /// # Safety
    /// As [`Transfer::attempt`].
    unsafe fn block(&self, calls: &mut u64) -> i32 {
        let (fd, offset, (iov, count)) = (self.fd, self.offset, self.vectors());
        retry(calls, || {
            // SAFETY: the caller's contract.
            check(unsafe {
                match (self.direction, offset) {
                    (Direction::Read, -1) => libc::readv(fd, iov, count),
                    (Direction::Read, _) => libc::preadv64(fd, iov, count, offset),
                    (Direction::Write, -1) => libc::writev(fd, iov, count),
                    (Direction::Write, _) => libc::pwritev64(fd, iov, count, offset),
                }
            } as i64)
        })
    }
}

/// Whether the file system keeps its files in memory. Those do not know RWF_NOWAIT, and need it least.
fn is_in_memory(calls: &mut u64, fd: RawFd) -> bool {
    *calls += 1;
    // SAFETY: zeros are a valid statfs.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer.
    let known = unsafe { libc::fstatfs(fd, &raw mut system) } == 0;
    // Each C library has another type for it.
    known && matches!(system.f_type as u32, TMPFS_MAGIC | RAMFS_MAGIC)
}

/// The memory of an op with one buffer.
fn one(buf: *mut u8, len: usize) -> Memory {
    Memory::One(libc::iovec {
        iov_base: buf.cast(),
        iov_len: len,
    })
}

macro_rules! transfer {
    ($op:ident $name:literal $direction:ident, $sample:expr, $it:ident => $memory:expr, $entry:expr) => {
        impl $op {
            fn transfer(&self) -> Transfer {
                let $it = self;
                Transfer {
                    fd: self.fd,
                    direction: Direction::$direction,
                    memory: $memory,
                    offset: self.offset,
                }
            }
        }

        impl Operation for $op {
            const FACTS: Facts = Facts::new($name, ($name, opcode::$op::CODE));

            const SAMPLE: Self = $sample;

            fn course(&self) -> Course {
                self.transfer().course()
            }

            fn entry(&self, _group: u16) -> Entry {
                let $it = self;
                $entry.offset(self.offset as u64).build()
            }

            unsafe fn attempt(&self, calls: &mut u64) -> i32 {
                // SAFETY: the caller's contract.
                unsafe { self.transfer().attempt(calls) }
            }

            unsafe fn block(&self) -> i32 {
                // SAFETY: the caller's contract.
                unsafe { self.transfer().block(&mut 0) }
            }
        }
    };
}

transfer!(
    Read "read" Read,
    Read { fd: NO_FILE, buf: std::ptr::null_mut(), len: 0, offset: -1 },
    op => one(op.buf, op.len),
    opcode::Read::new(types::Fd(op.fd), op.buf, clamp(op.len))
);
transfer!(
    Write "write" Write,
    Write { fd: NO_FILE, buf: std::ptr::null(), len: 0, offset: -1 },
    op => one(op.buf.cast_mut(), op.len),
    opcode::Write::new(types::Fd(op.fd), op.buf, clamp(op.len))
);
transfer!(
    Readv "readv" Read,
    Readv { fd: NO_FILE, iov: std::ptr::null(), count: 0, offset: -1 },
    op => Memory::Many(op.iov, op.count),
    opcode::Readv::new(types::Fd(op.fd), op.iov, op.count)
);
transfer!(
    Writev "writev" Write,
    Writev { fd: NO_FILE, iov: std::ptr::null(), count: 0, offset: -1 },
    op => Memory::Many(op.iov, op.count),
    opcode::Writev::new(types::Fd(op.fd), op.iov, op.count)
);

blocking!(
    Fsync,
    Facts {
        punted: true,
        ..Facts::new("fsync", ("fsync", opcode::Fsync::CODE))
    },
    Fsync { fd: NO_FILE, data_only: false },
    op => [op.fd, -1],
    opcode::Fsync::new(types::Fd(op.fd)).flags(if op.data_only {
        types::FsyncFlags::DATASYNC
    } else {
        types::FsyncFlags::empty()
    }).build(),
    if op.data_only { libc::fdatasync(op.fd) } else { libc::fsync(op.fd) }
);

impl Operation for WriteFsync {
    const FACTS: Facts = Facts {
        punted: true,
        pooled: true,
        ..Facts::new("write_fsync", ("fsync", opcode::Fsync::CODE))
    };

    const SAMPLE: Self = WriteFsync {
        fd: NO_FILE,
        buf: std::ptr::null(),
        len: 1,
        offset: -1,
        data_only: false,
        failure: std::ptr::null_mut(),
    };

    fn course(&self) -> Course {
        Course::Blocking([self.fd, -1])
    }

    fn entry(&self, group: u16) -> Entry {
        self.fsync().entry(group)
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    unsafe fn block(&self) -> i32 {
        if self.len != clamp(self.len) as usize {
            return -libc::EINVAL;
        }
        let mut done = 0;
        let failure = loop {
            let rest = Write {
                fd: self.fd,
                buf: self.buf.wrapping_add(done),
                len: self.len - done,
                offset: self.offset + if self.offset == -1 { 0 } else { done as i64 },
            };
            if rest.len == 0 {
                // SAFETY: a flush uses no memory.
                break unsafe { self.fsync().block() };
            }
            // SAFETY: the caller's contract; `rest` is a part of its buffer.
            match unsafe { rest.block() } {
                0 => break -libc::EIO,
                error if error < 0 => break error,
                count => done += count as usize,
            }
        };
        if done == 0 && failure < 0 {
            return failure;
        }
        // SAFETY: the caller's contract: room for a number.
        unsafe { self.failure.write(failure) };
        done as i32
    }
}

impl WriteFsync {
    fn fsync(&self) -> Fsync {
        Fsync {
            fd: self.fd,
            data_only: self.data_only,
        }
    }
}

blocking!(
    Truncate,
    Facts {
        punted: true,
        ..Facts::new("ftruncate", ("ftruncate", opcode::Ftruncate::CODE))
    },
    Truncate { fd: NO_FILE, len: 0 },
    op => [op.fd, -1],
    opcode::Ftruncate::new(types::Fd(op.fd), op.len as u64).build(),
    libc::ftruncate64(op.fd, op.len)
);

blocking!(
    Allocate,
    Facts {
        punted: true,
        ..Facts::new("fallocate", ("fallocate", opcode::Fallocate::CODE))
    },
    Allocate { fd: NO_FILE, mode: 0, offset: 0, len: 1 },
    op => [op.fd, -1],
    opcode::Fallocate::new(types::Fd(op.fd), op.len as u64).offset(op.offset as u64).mode(op.mode).build(),
    libc::fallocate64(op.fd, op.mode, op.offset, op.len)
);
