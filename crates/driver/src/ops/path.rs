//! Ops that name files by their paths.

use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

use super::operation::{Course, Facts, NO_FILE, Operation, blocking};
use crate::syscalls::{AGAIN, check, retry};

/// Open a file relative to a directory fd (or `AT_FDCWD`). The result is the fd, close-on-exec.
#[derive(Clone, Copy, Debug)]
pub struct OpenAt {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub flags: i32,
    pub mode: u32,
    /// The open waits for another process, as that of a FIFO does. (A ring would not wait, unless it is told to.)
    pub waits: bool,
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

/// Remove a name, as `unlinkat(2)` does: of a directory with `AT_REMOVEDIR`.
#[derive(Clone, Copy, Debug)]
pub struct UnlinkAt {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub flags: i32,
}

/// Make a directory.
#[derive(Clone, Copy, Debug)]
pub struct MkdirAt {
    pub dir: RawFd,
    pub path: *const libc::c_char,
    pub mode: u32,
}

/// Make a symbolic link at `path` that holds `target`.
#[derive(Clone, Copy, Debug)]
pub struct SymlinkAt {
    pub target: *const libc::c_char,
    pub dir: RawFd,
    pub path: *const libc::c_char,
}

/// Give a file a second name.
#[derive(Clone, Copy, Debug)]
pub struct LinkAt {
    pub from_dir: RawFd,
    pub from: *const libc::c_char,
    pub to_dir: RawFd,
    pub to: *const libc::c_char,
    pub flags: i32,
}

const NO_PATH: *const libc::c_char = std::ptr::null();

blocking!(
    OpenAt,
    Facts {
        makes_fd: true,
        ..Facts::new("openat", ("openat", opcode::OpenAt::CODE))
    },
    OpenAt { dir: NO_FILE, path: NO_PATH, flags: 0, mode: 0, waits: false },
    op => [op.dir, -1],
    opcode::OpenAt::new(types::Fd(op.dir), op.path)
        .flags(op.flags | libc::O_CLOEXEC)
        .mode(op.mode)
        .build()
        .flags(if op.waits { Flags::ASYNC } else { Flags::empty() }),
    libc::openat(op.dir, op.path, op.flags | libc::O_CLOEXEC, op.mode)
);

blocking!(
    Statx,
    Facts::new("statx", ("statx", opcode::Statx::CODE)),
    Statx { dir: NO_FILE, path: NO_PATH, flags: 0, mask: 0, buf: std::ptr::null_mut() },
    op => [op.dir, -1],
    opcode::Statx::new(types::Fd(op.dir), op.path, op.buf.cast()).flags(op.flags).mask(op.mask).build(),
    crate::by_number::statx(op.dir, op.path, op.flags, op.mask, op.buf)
);

blocking!(
    RenameAt,
    Facts::new("renameat", ("renameat", opcode::RenameAt::CODE)),
    RenameAt { from_dir: NO_FILE, from: NO_PATH, to_dir: NO_FILE, to: NO_PATH, flags: 0 },
    op => [op.from_dir, op.to_dir],
    opcode::RenameAt::new(types::Fd(op.from_dir), op.from, types::Fd(op.to_dir), op.to).flags(op.flags).build(),
    crate::by_number::renameat2(op.from_dir, op.from, op.to_dir, op.to, op.flags)
);

blocking!(
    UnlinkAt,
    Facts::new("unlinkat", ("unlinkat", opcode::UnlinkAt::CODE)),
    UnlinkAt { dir: NO_FILE, path: NO_PATH, flags: 0 },
    op => [op.dir, -1],
    opcode::UnlinkAt::new(types::Fd(op.dir), op.path).flags(op.flags).build(),
    libc::unlinkat(op.dir, op.path, op.flags)
);

blocking!(
    MkdirAt,
    Facts::new("mkdirat", ("mkdirat", opcode::MkDirAt::CODE)),
    MkdirAt { dir: NO_FILE, path: NO_PATH, mode: 0 },
    op => [op.dir, -1],
    opcode::MkDirAt::new(types::Fd(op.dir), op.path).mode(op.mode).build(),
    libc::mkdirat(op.dir, op.path, op.mode)
);

blocking!(
    SymlinkAt,
    Facts::new("symlinkat", ("symlinkat", opcode::SymlinkAt::CODE)),
    SymlinkAt { target: NO_PATH, dir: NO_FILE, path: NO_PATH },
    op => [op.dir, -1],
    opcode::SymlinkAt::new(types::Fd(op.dir), op.target, op.path).build(),
    libc::symlinkat(op.target, op.dir, op.path)
);

blocking!(
    LinkAt,
    Facts::new("linkat", ("linkat", opcode::LinkAt::CODE)),
    LinkAt { from_dir: NO_FILE, from: NO_PATH, to_dir: NO_FILE, to: NO_PATH, flags: 0 },
    op => [op.from_dir, op.to_dir],
    opcode::LinkAt::new(types::Fd(op.from_dir), op.from, types::Fd(op.to_dir), op.to).flags(op.flags).build(),
    libc::linkat(op.from_dir, op.from, op.to_dir, op.to, op.flags)
);
