//! What the io_uring server remembers about a connection, and the user data of its entries.
//!
//! This file only has state; the server decides what follows from it. A connection is identified by its slot in the
//! ring's table of files, so the kernel numbers the connections. A slot is closed only when the kernel has no
//! operation of it, so no completion reaches the slot's next connection. Only a late cancel can reach it and end its
//! receive, and then the server starts the receive again.

use std::collections::VecDeque;

/// The kind of a completion: the upper half of its user data. The lower half is the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Accept,
    Tick,
    /// Cancel and close: their results do not matter.
    Ignored,
    Receive,
    /// A send with MSG_DONTWAIT that did not send everything.
    Unsent,
    /// A send that waits for room.
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

/// Data in one of the shared buffers.
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
    /// The connection uses single large receives instead of the multishot receive.
    pub(super) bulk: bool,
    /// The connection changes to bulk, but its multishot receive has not ended yet.
    pub(super) leaving: bool,
    /// The peer has sent everything, or the connection is broken: close it as soon as no operation is with the
    /// kernel.
    pub(super) ended: bool,
    pub(super) broken: bool,
    /// The first chunk of `out` is in a send that does not wait.
    pub(super) offered: bool,
    /// A send of `rest` is with the kernel.
    pub(super) waiting: bool,
    pub(super) small_run: u8,
    /// The result of a send that does not wait, if it did not send everything.
    pub(super) unsent: Option<i32>,
    pub(super) out: VecDeque<Chunk>,
    /// The bytes that wait for room, and how many of them have been sent. The kernel reads from here, so the vector
    /// does not grow while `waiting`.
    pub(super) rest: Vec<u8>,
    pub(super) rest_sent: usize,
    /// The bytes that follow `rest`.
    pub(super) next: Vec<u8>,
}
