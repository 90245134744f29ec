//! Ops that receive from a socket.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use super::operation::{Course, Direction, Facts, Movable, NO_FILE, Operation, clamp};
use crate::syscalls::{check, retry};

const OPCODE: super::operation::Opcode = ("recv", opcode::Recv::CODE);

/// Receive into the engine's own buffers until the end of the stream, an error or a cancel. Each piece is one
/// completion with [`crate::Flags::MORE`], and [`crate::Driver::data`] returns its bytes. A result of 0 is the end of
/// the stream.
#[derive(Clone, Copy, Debug)]
pub struct RecvMulti {
    pub fd: RawFd,
}

/// Receive once into the submitter's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Recv {
    pub fd: RawFd,
    pub buf: *mut u8,
    pub len: usize,
    pub flags: i32,
}

/// Vectored receive, with address and ancillary data. Without the latter, `msg_flags` is no part of the result.
#[derive(Clone, Copy, Debug)]
pub struct RecvMsg {
    pub fd: RawFd,
    pub msg: *mut libc::msghdr,
    pub flags: i32,
}

impl Operation for RecvMulti {
    const FACTS: Facts = Facts {
        movable: Movable::WhileInert,
        ..Facts::new("recv_multi", OPCODE)
    };

    const SAMPLE: Self = RecvMulti { fd: NO_FILE };

    fn course(&self) -> Course {
        Course::RecvMulti(self.fd)
    }

    fn entry(&self, group: u16) -> Entry {
        opcode::RecvMulti::new(types::Fd(self.fd), group).build()
    }

    /// The op has no buffer, so it can't be attempted: an engine attempts a [`Recv`] into a buffer of its own.
    unsafe fn attempt(&self, _calls: &mut u64) -> i32 {
        -libc::EFAULT
    }
}

impl Operation for Recv {
    const FACTS: Facts = Facts::new("recv", OPCODE);

    const SAMPLE: Self = Recv {
        fd: NO_FILE,
        buf: std::ptr::null_mut(),
        len: 0,
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Once(self.fd, Direction::Read)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::Recv::new(types::Fd(self.fd), self.buf, clamp(self.len))
            .flags(self.flags)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        let flags = self.flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        retry(calls, || {
            // SAFETY: the submitter keeps the buffer valid.
            check(unsafe { libc::recv(self.fd, self.buf.cast(), self.len, flags) } as i64)
        })
    }
}

impl Operation for RecvMsg {
    const FACTS: Facts = Facts::new("recvmsg", ("recvmsg", opcode::RecvMsg::CODE));

    const SAMPLE: Self = RecvMsg {
        fd: NO_FILE,
        msg: std::ptr::null_mut(),
        flags: 0,
    };

    fn course(&self) -> Course {
        Course::Once(self.fd, Direction::Read)
    }

    fn entry(&self, _group: u16) -> Entry {
        opcode::RecvMsg::new(types::Fd(self.fd), self.msg)
            .flags(self.flags as u32)
            .build()
    }

    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        let flags = self.flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the submitter keeps the message valid, and everything that it points at. A sender's address needs a room first.
        retry(calls, || unsafe {
            check(match self.msg.as_mut() {
                // The same without a header for the kernel to copy and check.
                Some(msg) if msg.msg_iovlen == 1 && msg.msg_controllen == 0 => {
                    let (piece, from) = (&*msg.msg_iov, msg.msg_name);
                    let size = if from.is_null() {
                        std::ptr::null_mut()
                    } else {
                        &raw mut msg.msg_namelen
                    };
                    libc::recvfrom(self.fd, piece.iov_base, piece.iov_len, flags, from.cast(), size)
                }
                _ => libc::recvmsg(self.fd, self.msg, flags),
            } as i64)
        })
    }
}
