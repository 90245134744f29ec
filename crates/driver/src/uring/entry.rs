//! Writes an op as a submission queue entry.

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::op::{Direction, Op};

pub(super) fn poll(fd: RawFd, direction: Direction) -> Entry {
    let events = match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    };
    opcode::PollAdd::new(types::Fd(fd), events as u32).build()
}

/// The entry of an op; `group` is that of the buffers which it may receive into. Offsets of -1 mean the current position,
/// as the kernel has it.
pub(super) fn build(op: &Op, group: u16) -> Entry {
    use types::Fd;
    let created = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    match *op {
        Op::AcceptMulti { fd } => opcode::AcceptMulti::new(Fd(fd)).flags(created).build(),
        Op::Accept { fd } => opcode::Accept::new(Fd(fd), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(created)
            .build(),
        Op::Connect { fd, addr, len } => opcode::Connect::new(Fd(fd), addr, len).build(),
        Op::RecvMulti { fd } => opcode::RecvMulti::new(Fd(fd), group).build(),
        Op::Recv { fd, buf, len, flags } => opcode::Recv::new(Fd(fd), buf, clamp(len)).flags(flags).build(),
        Op::Send { fd, buf, len, flags } => opcode::Send::new(Fd(fd), buf, clamp(len))
            .flags(flags | libc::MSG_NOSIGNAL)
            .build(),
        Op::SendMsg { fd, msg, flags } => opcode::SendMsg::new(Fd(fd), msg)
            .flags((flags | libc::MSG_NOSIGNAL) as u32)
            .build(),
        Op::RecvMsg { fd, msg, flags } => opcode::RecvMsg::new(Fd(fd), msg).flags(flags as u32).build(),
        Op::Read { fd, buf, len, offset } => opcode::Read::new(Fd(fd), buf, clamp(len))
            .offset(offset as u64)
            .build(),
        Op::Write { fd, buf, len, offset } => opcode::Write::new(Fd(fd), buf, clamp(len))
            .offset(offset as u64)
            .build(),
        Op::Readv {
            fd,
            iov,
            count,
            offset,
        } => opcode::Readv::new(Fd(fd), iov, count)
            .offset(offset as u64)
            .build(),
        Op::Writev {
            fd,
            iov,
            count,
            offset,
        } => opcode::Writev::new(Fd(fd), iov, count)
            .offset(offset as u64)
            .build(),
        // One shot at a time: a level-triggered poll is submitted again after each completion.
        Op::Poll { fd, events } | Op::PollMulti { fd, events } => {
            opcode::PollAdd::new(Fd(fd), events).build()
        }
        Op::OpenAt {
            dir,
            path,
            flags,
            mode,
        } => opcode::OpenAt::new(Fd(dir), path)
            .flags(flags | libc::O_CLOEXEC)
            .mode(mode)
            .build(),
        Op::Close { fd } => opcode::Close::new(Fd(fd)).build(),
        Op::Fsync { fd, data_only } => {
            let flags = if data_only {
                types::FsyncFlags::DATASYNC
            } else {
                types::FsyncFlags::empty()
            };
            opcode::Fsync::new(Fd(fd)).flags(flags).build()
        }
        Op::Statx {
            dir,
            path,
            flags,
            mask,
            buf,
        } => opcode::Statx::new(Fd(dir), path, buf.cast())
            .flags(flags)
            .mask(mask)
            .build(),
        Op::Splice {
            from,
            from_offset,
            to,
            to_offset,
            len,
            flags,
        } => opcode::Splice::new(Fd(from), from_offset, Fd(to), to_offset, len)
            .flags(flags)
            .build(),
        Op::Shutdown { fd, how } => opcode::Shutdown::new(Fd(fd), how).build(),
        Op::WaitId { pidfd } => {
            let options = libc::WEXITED | libc::WNOWAIT;
            opcode::WaitId::new(libc::P_PIDFD, pidfd as libc::id_t, options).build()
        }
    }
}

/// An entry's length has 32 bits; a longer transfer is short, as it may always be.
fn clamp(len: usize) -> u32 {
    len.min(0x7fff_f000) as u32
}
