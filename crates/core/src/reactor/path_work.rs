//! What an operation does to names of files, as an op of the engine's. It owns the paths that the op points at.

use std::ffi::CString;
use std::os::fd::RawFd;

use proact_driver::{Op, ops};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use crate::py::errno::file_error;
use crate::py::make::Int;
use crate::py::status::{Status, stat_result};

/// A path that a program has passed, as the kernel takes it and as errors show it.
pub struct Path {
    pub dir: RawFd,
    pub path: CString,
    pub shown: Py<PyAny>,
}

pub enum PathWork {
    Open {
        path: Path,
        flags: i32,
        mode: u32,
    },
    Status {
        path: Path,
        flags: i32,
        status: Box<Status>,
    },
    Unlink {
        path: Path,
        flags: i32,
    },
    Mkdir {
        path: Path,
        mode: u32,
    },
    Symlink {
        target: Path,
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        flags: u32,
    },
    Link {
        from: Path,
        to: Path,
        flags: i32,
    },
}

impl PathWork {
    /// The op. Its memory is this object's, and on the heap.
    pub fn op(&self) -> Op {
        match *self {
            PathWork::Open {
                path: ref at,
                flags,
                mode,
            } => {
                let (dir, path) = (at.dir, at.path.as_ptr());
                ops::OpenAt {
                    dir,
                    path,
                    flags,
                    mode,
                    waits: false,
                }
                .into()
            }
            PathWork::Status {
                path: ref at,
                flags,
                ref status,
            } => {
                let (dir, path) = (at.dir, at.path.as_ptr());
                let (mask, buf) = (libc::STATX_BASIC_STATS, status.room());
                ops::Statx {
                    dir,
                    path,
                    flags,
                    mask,
                    buf,
                }
                .into()
            }
            PathWork::Unlink { path: ref at, flags } => {
                let (dir, path) = (at.dir, at.path.as_ptr());
                ops::UnlinkAt { dir, path, flags }.into()
            }
            PathWork::Mkdir { path: ref at, mode } => {
                let (dir, path) = (at.dir, at.path.as_ptr());
                ops::MkdirAt { dir, path, mode }.into()
            }
            PathWork::Symlink {
                ref target,
                path: ref at,
            } => {
                let (target, dir, path) = (target.path.as_ptr(), at.dir, at.path.as_ptr());
                ops::SymlinkAt { target, dir, path }.into()
            }
            PathWork::Rename {
                ref from,
                ref to,
                flags,
            } => rename(from, to, flags),
            PathWork::Link {
                ref from,
                ref to,
                flags,
            } => link(from, to, flags),
        }
    }

    /// The exception that `os` raises, with the names.
    pub fn error(&self, py: Python<'_>, result: i32) -> PyErr {
        let paths = match self {
            PathWork::Open { path, .. }
            | PathWork::Status { path, .. }
            | PathWork::Unlink { path, .. }
            | PathWork::Mkdir { path, .. } => vec![path],
            PathWork::Symlink { target, path } => vec![target, path],
            PathWork::Rename { from, to, .. } | PathWork::Link { from, to, .. } => vec![from, to],
        };
        let names: Vec<_> = paths.iter().map(|path| path.shown.clone_ref(py)).collect();
        file_error(py, result, &names)
    }

    /// What the operation returns for the op's result, which is not negative.
    pub fn outcome(self, py: Python<'_>, result: i32) -> PyResult<Py<PyAny>> {
        match self {
            PathWork::Status { status, .. } => Ok(stat_result(py, &status)?.unbind()),
            PathWork::Open { .. } => Int::new(result).into_py_any(py),
            _ => Ok(py.None()),
        }
    }
}

fn rename(from: &Path, to: &Path, flags: u32) -> Op {
    ops::RenameAt {
        from_dir: from.dir,
        from: from.path.as_ptr(),
        to_dir: to.dir,
        to: to.path.as_ptr(),
        flags,
    }
    .into()
}

fn link(from: &Path, to: &Path, flags: i32) -> Op {
    ops::LinkAt {
        from_dir: from.dir,
        from: from.path.as_ptr(),
        to_dir: to.dir,
        to: to.path.as_ptr(),
        flags,
    }
    .into()
}
