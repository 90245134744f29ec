//! What an engine can be asked to do: the closed set of operations, and the shape of their completions.
//!
//! An `Op` is plain data: file descriptors and raw pointers. It owns nothing; whoever submits it keeps the memory it
//! points at alive and unmoved until the terminal completion (a completion without [`Flags::MORE`]).
//!
//! Sockets to accept on and to connect are in non-blocking mode; for all else the mode does not matter: an op waits
//! without holding up the loop, and is never answered `-EAGAIN`. An fd that ops have been submitted for is closed by
//! [`Op::Close`], never behind the engine's back. Ops of one fd and direction that are in flight together may be
//! carried out in any order.

use std::os::fd::RawFd;

/// The submitter's name for an op in flight. Only the low [`TOKEN_BITS`] bits may be used: engines tag the rest.
pub type Token = u64;

/// Width of a token, in bits.
pub const TOKEN_BITS: u32 = 56;

/// One operation. Results are as the system call's: a count, a new fd, or 0; negative is `-errno`.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Accept connections until cancelled: one completion with [`Flags::MORE`] for each (result: the new fd,
    /// non-blocking and close-on-exec). The errors of one connection (accept(2), "Error handling"; `EPERM`) are passed
    /// over, unless they never end. `EMFILE`, `ENFILE`, `ENOBUFS` and `ENOMEM` end it by a completion, never at submission:
    /// it may be submitted again when there is room.
    AcceptMulti { fd: RawFd },
    /// Accept one connection.
    Accept { fd: RawFd },
    /// Connect to an address.
    Connect {
        fd: RawFd,
        addr: *const libc::sockaddr,
        len: libc::socklen_t,
    },
    /// Receive out of the engine's own buffers until end of file, error or cancel: one completion with
    /// [`Flags::MORE`] for each piece (its bytes: [`crate::Driver::data`]). A result of 0 is the end of the stream.
    RecvMulti { fd: RawFd },
    /// Receive once into the submitter's buffer.
    Recv {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        flags: i32,
    },
    /// Send once from the submitter's buffer; may be short.
    Send {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        flags: i32,
    },
    /// Vectored send, with address and ancillary data; may be short.
    SendMsg {
        fd: RawFd,
        msg: *const libc::msghdr,
        flags: i32,
    },
    /// Vectored receive, with address and ancillary data.
    RecvMsg {
        fd: RawFd,
        msg: *mut libc::msghdr,
        flags: i32,
    },
    /// Read; `offset` -1 means the current position (pipes, ttys, sockets).
    Read {
        fd: RawFd,
        buf: *mut u8,
        len: usize,
        offset: i64,
    },
    /// Write; `offset` as in `Read`.
    Write {
        fd: RawFd,
        buf: *const u8,
        len: usize,
        offset: i64,
    },
    /// Scatter read; `offset` as in `Read`.
    Readv {
        fd: RawFd,
        iov: *const libc::iovec,
        count: u32,
        offset: i64,
    },
    /// Gather write; `offset` as in `Read`.
    Writev {
        fd: RawFd,
        iov: *const libc::iovec,
        count: u32,
        offset: i64,
    },
    /// Wait once until the fd has `events` (`POLLIN` or `POLLOUT`, not both); result: events that it has, `POLLERR` and
    /// `POLLHUP` perhaps among them or instead.
    Poll { fd: RawFd, events: u32 },
    /// The same, level triggered until cancelled: at most one completion with [`Flags::MORE`] a wait while it is ready.
    PollMulti { fd: RawFd, events: u32 },
    /// Open a file relative to a directory fd (or `AT_FDCWD`); result: the fd.
    OpenAt {
        dir: RawFd,
        path: *const libc::c_char,
        flags: i32,
        mode: u32,
    },
    /// Close an fd. Ops of this fd that are in flight are cancelled, and the fd is closed once all of them have ended:
    /// its number is never reused under an op.
    Close { fd: RawFd },
    /// Flush a file to storage; with `data_only` not its metadata.
    Fsync { fd: RawFd, data_only: bool },
    /// File status into the submitter's `statx`.
    Statx {
        dir: RawFd,
        path: *const libc::c_char,
        flags: i32,
        mask: u32,
        buf: *mut libc::statx,
    },
    /// Move bytes between two fds, one of which is a pipe; offsets -1 mean the current position.
    Splice {
        from: RawFd,
        from_offset: i64,
        to: RawFd,
        to_offset: i64,
        len: u32,
        flags: u32,
    },
    /// Shut down one or both directions of a socket.
    Shutdown { fd: RawFd, how: i32 },
    /// Wait until the child process of a pidfd has ended; its status stays to be collected (`WNOWAIT` of waitid(2)), so
    /// that its pid is not reused before the program knows.
    WaitId { pidfd: RawFd },
}

// SAFETY: an Op is data to hand to a kernel; whoever submits it answers for its pointers (`Driver::submit` is unsafe).
unsafe impl Send for Op {}

macro_rules! kinds {
    ($($kind:ident = $name:literal),+ $(,)?) => {
        /// The kind of an op: what statistics count by, and what an engine remembers of an op in flight.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum OpKind { $($kind),+ }

        impl OpKind {
            /// Every kind, in the order of their discriminants.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$kind),+];

            /// The name in statistics.
            pub fn name(self) -> &'static str {
                match self { $(OpKind::$kind => $name),+ }
            }
        }
    };
}

kinds! {
    AcceptMulti = "accept_multi", Accept = "accept", Connect = "connect", RecvMulti = "recv_multi", Recv = "recv",
    Send = "send", SendMsg = "sendmsg", RecvMsg = "recvmsg", Read = "read", Write = "write", Readv = "readv",
    Writev = "writev", Poll = "poll", PollMulti = "poll_multi", OpenAt = "openat", Close = "close", Fsync = "fsync",
    Statx = "statx", Splice = "splice", Shutdown = "shutdown", WaitId = "waitid",
}

/// Which way an op waits for its fd when it can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
}

impl Op {
    pub fn kind(&self) -> OpKind {
        match self {
            Op::AcceptMulti { .. } => OpKind::AcceptMulti,
            Op::Accept { .. } => OpKind::Accept,
            Op::Connect { .. } => OpKind::Connect,
            Op::RecvMulti { .. } => OpKind::RecvMulti,
            Op::Recv { .. } => OpKind::Recv,
            Op::Send { .. } => OpKind::Send,
            Op::SendMsg { .. } => OpKind::SendMsg,
            Op::RecvMsg { .. } => OpKind::RecvMsg,
            Op::Read { .. } => OpKind::Read,
            Op::Write { .. } => OpKind::Write,
            Op::Readv { .. } => OpKind::Readv,
            Op::Writev { .. } => OpKind::Writev,
            Op::Poll { .. } => OpKind::Poll,
            Op::PollMulti { .. } => OpKind::PollMulti,
            Op::OpenAt { .. } => OpKind::OpenAt,
            Op::Close { .. } => OpKind::Close,
            Op::Fsync { .. } => OpKind::Fsync,
            Op::Statx { .. } => OpKind::Statx,
            Op::Splice { .. } => OpKind::Splice,
            Op::Shutdown { .. } => OpKind::Shutdown,
            Op::WaitId { .. } => OpKind::WaitId,
        }
    }

    /// The fd whose readiness the op would wait for, and in which direction; `None` for what never waits on readiness.
    pub fn waits_on(&self) -> Option<(RawFd, Direction)> {
        match *self {
            Op::AcceptMulti { fd }
            | Op::Accept { fd }
            | Op::RecvMulti { fd }
            | Op::Recv { fd, .. }
            | Op::RecvMsg { fd, .. }
            | Op::Read { fd, offset: -1, .. }
            | Op::Readv { fd, offset: -1, .. }
            | Op::WaitId { pidfd: fd } => Some((fd, Direction::Read)),
            Op::Connect { fd, .. }
            | Op::Send { fd, .. }
            | Op::SendMsg { fd, .. }
            | Op::Write { fd, offset: -1, .. }
            | Op::Writev { fd, offset: -1, .. } => Some((fd, Direction::Write)),
            Op::Poll { fd, events } | Op::PollMulti { fd, events } => {
                let writes = events & libc::POLLOUT as u32 != 0 && events & libc::POLLIN as u32 == 0;
                Some((fd, if writes { Direction::Write } else { Direction::Read }))
            }
            _ => None,
        }
    }
}

impl Op {
    /// The fds that the op uses, which must not be closed under it; -1 for none. A close uses none.
    pub fn uses(&self) -> [RawFd; 2] {
        match *self {
            Op::AcceptMulti { fd }
            | Op::Accept { fd }
            | Op::Connect { fd, .. }
            | Op::RecvMulti { fd }
            | Op::Recv { fd, .. }
            | Op::Send { fd, .. }
            | Op::SendMsg { fd, .. }
            | Op::RecvMsg { fd, .. }
            | Op::Read { fd, .. }
            | Op::Write { fd, .. }
            | Op::Readv { fd, .. }
            | Op::Writev { fd, .. }
            | Op::Poll { fd, .. }
            | Op::PollMulti { fd, .. }
            | Op::Fsync { fd, .. }
            | Op::Shutdown { fd, .. }
            | Op::WaitId { pidfd: fd } => [fd, -1],
            Op::OpenAt { dir, .. } | Op::Statx { dir, .. } => [dir, -1],
            Op::Splice { from, to, .. } => [from, if to == from { -1 } else { to }],
            Op::Close { .. } => [-1, -1],
        }
    }
}

/// Facts about a completion beside its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The op stays in flight: more completions follow.
    pub const MORE: Flags = Flags(1);
    /// The completion carries bytes: see [`crate::Driver::data`]; give them back with [`crate::Driver::release`].
    pub const DATA: Flags = Flags(2);
    /// The piece filled its buffer: the peer is sending in bulk and larger receives would serve better.
    pub const FULL: Flags = Flags(4);

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One completion of one op.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub token: Token,
    /// As the system call's: negative is `-errno`.
    pub result: i32,
    pub flags: Flags,
    /// Where the bytes are (the engine's business); meaningful with [`Flags::DATA`].
    pub(crate) data: u32,
}

impl Completion {
    /// That of an op which is over, without bytes.
    pub fn terminal(token: Token, result: i32) -> Completion {
        Completion {
            token,
            result,
            flags: Flags::default(),
            data: 0,
        }
    }

    /// Whether the op is over.
    pub fn is_terminal(&self) -> bool {
        !self.flags.contains(Flags::MORE)
    }
}
