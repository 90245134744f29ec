//! `os.stat_result`, of what `statx(2)` tells.

use std::cell::UnsafeCell;

use pyo3::prelude::*;

use crate::py::make::{Float, Int, Unsigned, name, tuple};

/// Room for the kernel to write a status into.
pub struct Status(UnsafeCell<libc::statx>);

// SAFETY: plain data. The kernel writes it while the op is in flight, and nobody reads it before the op is over.
unsafe impl Sync for Status {}

impl Default for Status {
    fn default() -> Status {
        // SAFETY: zeros are a valid status.
        Status(UnsafeCell::new(unsafe { std::mem::zeroed() }))
    }
}

impl Status {
    pub fn room(&self) -> *mut libc::statx {
        self.0.get()
    }

    /// What the kernel has written.
    fn get(&self) -> &libc::statx {
        // SAFETY: the op is over when somebody asks, so nobody writes any more.
        unsafe { &*self.0.get() }
    }

    pub fn get_mut(&mut self) -> &mut libc::statx {
        self.0.get_mut()
    }

    /// The type bits of the mode.
    pub fn kind(&self) -> u32 {
        u32::from(self.get().stx_mode) & libc::S_IFMT
    }

    pub fn size(&self) -> u64 {
        self.get().stx_size
    }
}

fn nanoseconds(time: &libc::statx_timestamp) -> i64 {
    time.tv_sec * 1_000_000_000 + i64::from(time.tv_nsec)
}

fn seconds(time: &libc::statx_timestamp) -> Float {
    Float(time.tv_sec as f64 + 1e-9 * f64::from(time.tv_nsec))
}

/// As `os.stat` returns it.
pub fn stat_result<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyAny>> {
    let it = status.get();
    let (access, modification, change) = (&it.stx_atime, &it.stx_mtime, &it.stx_ctime);
    let device = libc::makedev(it.stx_dev_major, it.stx_dev_minor);
    let special = libc::makedev(it.stx_rdev_major, it.stx_rdev_minor);
    let int = |number: i64| Int::new(number).into_pyobject(py).map(Bound::into_any);
    let unsigned = |number: u64| Unsigned(number).into_pyobject(py).map(Bound::into_any);
    let float = |time| seconds(time).into_pyobject(py).map(Bound::into_any);
    let fields = tuple(
        py,
        &[
            int(it.stx_mode.into())?,
            unsigned(it.stx_ino)?,
            unsigned(device)?,
            int(it.stx_nlink.into())?,
            int(it.stx_uid.into())?,
            int(it.stx_gid.into())?,
            unsigned(it.stx_size)?,
            int(access.tv_sec)?,
            int(modification.tv_sec)?,
            int(change.tv_sec)?,
            float(access)?,
            float(modification)?,
            float(change)?,
            int(nanoseconds(access))?,
            int(nanoseconds(modification))?,
            int(nanoseconds(change))?,
            int(it.stx_blksize.into())?,
            unsigned(it.stx_blocks)?,
            unsigned(special)?,
        ],
    )?;
    py.import(name!("os"))?
        .getattr(name!("stat_result"))?
        .call1((fields,))
}
