//! What the io_uring server remembers about a connection, and how it says so to the kernel: user data.
//!
//! Only state; what follows from it is decided in the server. A connection is its slot in the ring's table of
//! files, so the kernel numbers them. A slot is closed only when nothing of it is with the kernel, so a
//! completion never meets a stranger, but for a late cancel, which the stranger survives (it receives again).

use std::collections::VecDeque;

/// What a completion is about: the upper half of its user data. The lower half is the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Tick,
    /// Cancel and close: how they end does not matter.
    Ignored,
    Receive,
    /// A send that was not to wait, and did not go out whole.
    Unsent,
    /// A send that waited for room.
    Sent,
}

pub(super) const KINDS: [Kind; 6] = [
    Kind::Accept,
    Kind::Tick,
    Kind::Ignored,
    Kind::Receive,
    Kind::Unsent,
    Kind::Sent,
];

pub(super) fn user_data(kind: Kind, connection: u32) -> u64 {
    (kind as u64) << 32 | u64::from(connection)
}

/// Data in a buffer of ours.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) large: bool,
    pub(super) id: u16,
    pub(super) len: u32,
}

#[derive(Default)]
pub(super) struct Connection<S> {
    pub(super) session: S,
    pub(super) open: bool,
    /// A receive is with the kernel.
    pub(super) armed: bool,
    /// Single large receives instead of the multishot.
    pub(super) bulk: bool,
    /// Bulk is wanted, but the multishot has not ended yet.
    pub(super) leaving: bool,
    /// The peer has sent all, or the connection is broken: close it as soon as nothing is with the kernel.
    pub(super) ended: bool,
    pub(super) broken: bool,
    /// The first of `out` has been handed to the kernel as a send that does not wait.
    pub(super) offered: bool,
    /// A send of `rest` is with the kernel.
    pub(super) waiting: bool,
    pub(super) small_run: u8,
    /// How a send that was not to wait ended, if it did not go out whole.
    pub(super) unsent: Option<i32>,
    pub(super) out: VecDeque<Chunk>,
    /// What waits for room, and how much of it has gone; the kernel reads from here, so it does not grow
    /// while `waiting`.
    pub(super) rest: Vec<u8>,
    pub(super) rest_sent: usize,
    /// What comes after `rest`.
    pub(super) next: Vec<u8>,
}
