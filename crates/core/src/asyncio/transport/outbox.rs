//! What a transport has yet to send: the `bytes` objects themselves, in order, and the vector that names them.
//!
//! While a send is in flight the kernel reads the chunks at the front through `message`: they are neither dropped nor
//! moved until its completion (`sent`). The vector lives on the heap, not on a stack that greenlets may swap.

use std::collections::VecDeque;

use proact_driver::{Driver, Op, ops, syscalls};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Chunks that one send carries.
const VECTORS: usize = 64;
/// Bytes that one send carries, so that a slow peer's progress is seen and flow control reacts.
const ONE_SEND: usize = 1 << 20;

struct Message {
    vectors: [libc::iovec; VECTORS],
    header: libc::msghdr,
}

/// What few connections ever need, and only while something waits.
#[derive(Default)]
struct More {
    /// The chunks behind the first.
    chunks: VecDeque<Py<PyBytes>>,
    /// Bytes of the first chunk that are sent already.
    offset: usize,
    message: Option<Box<Message>>,
}

#[derive(Default)]
pub struct Outbox {
    first: Option<Py<PyBytes>>,
    more: Option<Box<More>>,
    len: usize,
}

// SAFETY: the pointers in `message` name memory of the chunks, which moves along.
unsafe impl Send for Outbox {}

impl Outbox {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, chunk: Bound<'_, PyBytes>) {
        self.len += chunk.as_bytes().len();
        match self.first {
            None => self.first = Some(chunk.unbind()),
            Some(_) => self.more.get_or_insert_default().chunks.push_back(chunk.unbind()),
        }
    }

    /// The op that sends what is at the front.
    pub fn op(&mut self, py: Python<'_>, fd: i32) -> Option<Op> {
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let first = self.first.as_ref()?;
        let more = self.more.as_mut().filter(|more| !more.chunks.is_empty());
        let Some(More {
            chunks,
            offset,
            message,
        }) = more.map(|more| &mut **more)
        else {
            let rest = &first.bind(py).as_bytes()[self.offset()..];
            return Some(Op::Send(ops::Send {
                fd,
                buf: rest.as_ptr(),
                len: rest.len().min(ONE_SEND),
                flags,
            }));
        };
        let mut total = 0;
        let mut count = 0;
        let message = message.get_or_insert_with(|| {
            // SAFETY: zeros are a value of iovec and msghdr.
            Box::new(unsafe { std::mem::zeroed() })
        });
        for (index, chunk) in std::iter::once(first)
            .chain(chunks.iter())
            .take(VECTORS)
            .enumerate()
        {
            let skip = if index == 0 { *offset } else { 0 };
            let rest = &chunk.bind(py).as_bytes()[skip..];
            let len = rest.len().min(ONE_SEND - total);
            message.vectors[index] = libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: len,
            };
            count += 1;
            total += len;
            if total == ONE_SEND {
                break;
            }
        }
        message.header.msg_iov = message.vectors.as_mut_ptr();
        message.header.msg_iovlen = count;
        (count > 0).then_some(Op::SendMsg(ops::SendMsg {
            fd,
            msg: &raw const message.header,
            flags,
        }))
    }

    /// As `op`, for an fd that is no socket.
    pub fn write_op(&mut self, py: Python<'_>, fd: i32) -> Option<Op> {
        Some(match self.op(py, fd)? {
            Op::Send(ops::Send { fd, buf, len, .. }) => Op::Write(ops::Write {
                fd,
                buf,
                len,
                offset: -1,
            }),
            _ => {
                let header = &self.more.as_ref()?.message.as_ref()?.header;
                Op::Writev(ops::Writev {
                    fd,
                    iov: header.msg_iov,
                    count: header.msg_iovlen as u32,
                    offset: -1,
                })
            }
        })
    }

    /// A send of `count` bytes has completed.
    pub fn sent(&mut self, py: Python<'_>, count: usize) {
        self.len = self.len.saturating_sub(count);
        let mut left = self.offset() + count;
        while let Some(chunk) = &self.first {
            let size = chunk.bind(py).as_bytes().len();
            if left < size {
                break;
            }
            left -= size;
            self.first = self.more.as_mut().and_then(|more| more.chunks.pop_front());
        }
        match &mut self.more {
            more if self.first.is_none() => *more = None,
            None if left == 0 => {}
            more => more.get_or_insert_default().offset = left,
        }
    }

    fn offset(&self) -> usize {
        self.more.as_ref().map_or(0, |more| more.offset)
    }

    /// Sends what is queued as far as the fd takes it: 0, or the error of the fd. `next` makes the ops, each of which carries a
    /// bounded part. No send may be in flight.
    pub fn flush(
        &mut self,
        py: Python<'_>,
        driver: &mut dyn Driver,
        next: impl Fn(&mut Outbox, Python<'_>) -> Option<Op>,
    ) -> i32 {
        while !self.is_empty() {
            let Some(op) = next(self, py) else { break };
            // SAFETY: the outbox keeps the chunks, and is borrowed while the call lasts.
            match unsafe { driver.attempt(&op) } {
                syscalls::AGAIN => break,
                error if error < 0 => return error,
                count => self.sent(py, count as usize),
            }
        }
        0
    }

    /// Forgets everything; no send may be in flight.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}
