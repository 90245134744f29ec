//! The memory that datagrams are received into: one piece for all transports of a loop, made with the first of them.

use std::os::fd::RawFd;

use proact_driver::{Driver, Op, ops};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::address::Address;
use crate::py::bytes::{bytes_memory, uninit_bytes};

/// The largest datagram that arrives whole (asyncio's own limit); UDP's are below 64 KiB, Unix ones may be larger.
const ROOM: usize = 256 * 1024;

#[derive(Default)]
pub struct Inbox(Vec<u8>);

impl Inbox {
    /// One datagram and its sender, if one is there. No more than its own size is copied or allocated.
    pub fn receive<'py>(
        &mut self,
        py: Python<'py>,
        driver: &mut dyn Driver,
        fd: RawFd,
    ) -> PyResult<Result<(Bound<'py, PyBytes>, Address), i32>> {
        // Reserved and not initialised: only the pages up to the largest datagram so far are ever touched.
        self.0.reserve(ROOM);
        let mut from = Address::room();
        let mut vector = libc::iovec {
            iov_base: self.0.as_mut_ptr().cast(),
            iov_len: ROOM,
        };
        // SAFETY: zeros are a value of msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from.storage).cast();
        message.msg_namelen = from.len;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        let op = Op::RecvMsg(ops::RecvMsg {
            fd,
            msg: &raw mut message,
            flags: 0,
        });
        // SAFETY: the call does not block and is over when it returns, and all that it points at is here.
        let count = unsafe { driver.attempt(&op) };
        if count < 0 {
            return Ok(Err(count));
        }
        from.len = message.msg_namelen;
        let data = uninit_bytes(py, count as usize)?;
        // SAFETY: a fresh object of just this length, and as much was received.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), bytes_memory(&data), count as usize) };
        Ok(Ok((data, from)))
    }
}
