//! Ops that send on a socket.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, NO_FILE, Operation, clamp};
use crate::syscalls::{check, retry};

/// Send once from the submitter's buffer. The kernel may take less than all bytes.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    pub fd: RawFd,
    pub buf: *const u8,
    pub len: usize,
    pub flags: i32,
}

/// Vectored send, with address and ancillary data. The kernel may take less than all bytes.
#[derive(Clone, Copy, Debug)]
pub struct SendMsg {
    pub fd: RawFd,
    pub msg: *const libc::msghdr,
    pub flags: i32,
}

/// The flags of an attempt. `MSG_WAITALL` asks a ring to go on until everything is sent; an attempt can't wait.
fn attempted(flags: i32) -> i32 {
    (flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL
}

impl Operation for Send {
    const FACTS: Facts = Facts::new("send", ("send", opcode::Send::CODE));

    const SAMPLE: Self = Send {
        fd: NO_FILE,
        buf: std::ptr::null(),
        len: 0,
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Once(self.fd, Direction::Write)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Send::new(types::Fd(self.fd), self.buf, clamp(self.len))
            .flags(self.flags | libc::MSG_NOSIGNAL)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        let flags = attempted(self.flags);
        retry(calls, || {
            // SAFETY: the submitter keeps the buffer valid.
            check(unsafe { libc::send(self.fd, self.buf.cast(), self.len, flags) } as i64)
        })
    }
}

impl Operation for SendMsg {
    const FACTS: Facts = Facts::new("sendmsg", ("sendmsg", opcode::SendMsg::CODE));

    const SAMPLE: Self = SendMsg {
        fd: NO_FILE,
        msg: std::ptr::null(),
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Once(self.fd, Direction::Write)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::SendMsg::new(types::Fd(self.fd), self.msg)
            .flags((self.flags | libc::MSG_NOSIGNAL) as u32)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        let flags = attempted(self.flags);
        // SAFETY: the submitter keeps the message valid, and everything that it points at.
        retry(calls, || unsafe {
            check(match self.msg.as_ref() {
                // The same without a header for the kernel to copy and check.
                Some(msg) if msg.msg_iovlen == 1 && msg.msg_controllen == 0 => {
                    let piece = &*msg.msg_iov;
                    let to = msg.msg_name.cast();
                    libc::sendto(self.fd, piece.iov_base, piece.iov_len, flags, to, msg.msg_namelen)
                }
                _ => libc::sendmsg(self.fd, self.msg, flags),
            } as i64)
        })
    }
}
