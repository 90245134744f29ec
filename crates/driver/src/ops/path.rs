//! Ops that name files by their paths.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation};
use crate::syscalls::{AGAIN, check, retry};

/// Open a file relative to a directory fd (or `AT_FDCWD`). The result is the fd, close-on-exec.
#[derive(Clone, Copy, Debug)]
pub struct OpenAt {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub flags: i32,
    pub mode: u32,
}

/// Write a file's status into the submitter's `statx`.
#[derive(Clone, Copy, Debug)]
pub struct Statx {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub flags: i32,
    pub mask: u32,
    pub buf: *mut libc::statx,
}

/// Rename a file, as `renameat2(2)` does.
#[derive(Clone, Copy, Debug)]
pub struct RenameAt {
    pub from_dir: RawFd,
    pub from: *const libc::c_char,
    pub to_dir: RawFd,
    pub to: *const libc::c_char,
    pub flags: u32,
}

impl Operation for OpenAt {
    const FACTS: Facts = Facts {
        makes_fd: true,
        ..Facts::new("openat", ("openat", opcode::OpenAt::CODE))
    };

    const SAMPLE: Self = OpenAt {
        dir: NO_FILE,
        path: std::ptr::null(),
        flags: 0,
        mode: 0,
    };

    fn course(&self) -> Course {
        Course::Blocking([self.dir, -1])
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::OpenAt::new(types::Fd(self.dir), self.path)
            .flags(self.flags | libc::O_CLOEXEC)
            .mode(self.mode)
            .build()
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    unsafe fn block(&self) -> i32 {
        let flags = self.flags | libc::O_CLOEXEC;
        retry(&mut 0, || {
            // SAFETY: the submitter keeps the path valid.
            check(i64::from(unsafe {
                libc::openat(self.dir, self.path, flags, self.mode)
            }))
        })
    }
}

impl Operation for Statx {
    const FACTS: Facts = Facts::new("statx", ("statx", opcode::Statx::CODE));

    const SAMPLE: Self = Statx {
        dir: NO_FILE,
        path: std::ptr::null(),
        flags: 0,
        mask: 0,
        buf: std::ptr::null_mut(),
    };

    fn course(&self) -> Course {
        Course::Blocking([self.dir, -1])
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Statx::new(types::Fd(self.dir), self.path, self.buf.cast())
            .flags(self.flags)
            .mask(self.mask)
            .build()
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    unsafe fn block(&self) -> i32 {
        retry(&mut 0, || {
            // SAFETY: the submitter keeps the path and the buffer valid.
            check(i64::from(unsafe {
                libc::statx(self.dir, self.path, self.flags, self.mask, self.buf)
            }))
        })
    }
}

impl Operation for RenameAt {
    const FACTS: Facts = Facts::new("renameat", ("renameat", opcode::RenameAt::CODE));

    const SAMPLE: Self = RenameAt {
        from_dir: NO_FILE,
        from: std::ptr::null(),
        to_dir: NO_FILE,
        to: std::ptr::null(),
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Blocking([self.from_dir, self.to_dir])
    }

    fn entry(&self, _group: u16) -> Entry {
        let (from, to) = (types::Fd(self.from_dir), types::Fd(self.to_dir));
        opcode::RenameAt::new(from, self.from, to, self.to)
            .flags(self.flags)
            .build()
    }

    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        AGAIN
    }

    unsafe fn block(&self) -> i32 {
        retry(&mut 0, || {
            // SAFETY: the submitter keeps the paths valid.
            check(i64::from(unsafe {
                libc::renameat2(self.from_dir, self.from, self.to_dir, self.to, self.flags)
            }))
        })
    }
}
