//! The receiving side of a stream transport. Three things change independently of each other, and each is an enum.
//!
//! The *op in flight* (`in_flight.rs`): the next op begins after the terminal completion of the one before.
//!
//! The *way* of the next op. Each change stops the op in flight, so that the next one is of the new way:
//!
//! ```text
//!            a piece fills its buffer, or a BufferedProtocol is set
//!   Pieces ─────────────────────────────────────────────────────────> Bulk
//!     │ ▲                     a streak of small receives               │ │
//!     │ └──────────────────────────────────────────────────────────────┘ │
//!     └───────────────────> Ended <──────────────────────────────────────┘
//!                        the peer has ended its side
//! ```
//!
//! The *delivery* of what has arrived. In `Direct` it is handed over at once. In the other states it is kept, so that it does not
//! overtake what is kept already. `Behind` always keeps something:
//!
//! ```text
//!            pause                       resume
//!   Direct ─────────> Paused(kept) ────────────────> Behind(kept)
//!     ▲ ▲               │      ▲    something is kept   │   │
//!     │ └───────────────┘      └────────────────────────┘   │
//!     │  resume, nothing kept            pause              │
//!     └─────────────────────────────────────────────────────┘
//!                  the last thing kept is handed over
//! ```

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::in_flight::InFlight;
use super::rare::Rare;
use crate::reactor::io::Io;

/// A bulk receive below this counts as small, in bytes.
const SMALL: usize = 4096;
/// After this many small bulk receives in a row the peer no longer sends in bulk.
const STREAK: u8 = 8;

/// How the next op receives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A multishot receive: pieces out of the engine's buffers, so that an idle connection pins no memory.
    Pieces,
    /// A multishot poll, and one large receive straight into the final object each time: for a peer that sends in bulk.
    Bulk {
        /// Small receives in a row.
        small: u8,
    },
    /// No more.
    Ended,
}

impl Way {
    const BULK: Way = Way::Bulk { small: 0 };
}

/// What arrives, in its order.
pub(super) enum Piece {
    Data(Py<PyBytes>),
    End,
}

enum Delivery {
    Direct,
    /// The program has paused reading.
    Paused(Rare<Piece>),
    /// The program has resumed: what was kept comes first.
    Behind(Rare<Piece>),
}

pub(super) struct Receiving {
    pub op: InFlight,
    way: Way,
    delivery: Delivery,
}

impl Receiving {
    /// A BufferedProtocol begins in bulk: it says where the bytes go and how many it takes at most, and it may pause or be replaced
    /// before everything is taken. Pieces would already have left the socket. On an engine that receives nothing between two waits,
    /// pieces would gain nothing: everything is received in bulk.
    pub fn new(bulk: bool) -> Receiving {
        Receiving {
            op: InFlight::Nothing,
            way: if bulk { Way::BULK } else { Way::Pieces },
            delivery: Delivery::Direct,
        }
    }

    /// The way of the next op, if it is to begin now.
    pub fn next_way(&self) -> Option<Way> {
        let begins = self.op.is_nothing() && self.way != Way::Ended && !self.is_paused();
        begins.then_some(self.way)
    }

    /// Whether the transport receives now that the socket is readable.
    pub fn takes(&self) -> bool {
        !self.op.is_stopping() && self.way != Way::Ended && !self.is_paused()
    }

    fn change(&mut self, way: Way, io: &mut Io) {
        self.way = way;
        self.op.stop(io);
    }

    /// A piece has filled its buffer: the peer sends in bulk.
    pub fn piece_was_full(&mut self, io: &mut Io) {
        if !self.op.is_stopping() {
            self.change(Way::BULK, io);
        }
    }

    /// A BufferedProtocol took the place of the protocol.
    pub fn fill_buffers(&mut self, io: &mut Io) {
        if self.way == Way::Pieces {
            self.change(Way::BULK, io);
        }
    }

    /// A bulk receive has brought `count` bytes; whether it ends a streak of small ones.
    pub fn ends_streak(&mut self, count: usize) -> bool {
        let Way::Bulk { small } = &mut self.way else {
            return false;
        };
        *small = if count < SMALL { small.saturating_add(1) } else { 0 };
        *small >= STREAK
    }

    /// The peer no longer sends in bulk.
    pub fn back_to_pieces(&mut self, io: &mut Io) {
        self.change(Way::Pieces, io);
    }

    /// The peer has ended its side.
    pub fn end(&mut self, io: &mut Io) {
        self.change(Way::Ended, io);
    }

    pub fn is_paused(&self) -> bool {
        matches!(self.delivery, Delivery::Paused(_))
    }

    /// Nothing is handed over until `resume`. Changes nothing where reading is paused already.
    pub fn pause(&mut self, io: &mut Io) {
        self.delivery = match std::mem::replace(&mut self.delivery, Delivery::Direct) {
            Delivery::Direct => Delivery::Paused(Rare::default()),
            Delivery::Behind(kept) | Delivery::Paused(kept) => Delivery::Paused(kept),
        };
        self.op.stop(io);
    }

    /// Ends a pause; whether something is kept, which then comes first.
    pub fn resume(&mut self) -> bool {
        self.delivery = match std::mem::replace(&mut self.delivery, Delivery::Direct) {
            Delivery::Paused(kept) if !kept.is_empty() => Delivery::Behind(kept),
            Delivery::Paused(_) => Delivery::Direct,
            other => other,
        };
        matches!(self.delivery, Delivery::Behind(_))
    }

    /// Something has arrived: kept, or given back to be handed over now.
    #[inline]
    pub fn arrived(&mut self, piece: Piece) -> Option<Piece> {
        match &mut self.delivery {
            Delivery::Direct => return Some(piece),
            Delivery::Paused(kept) | Delivery::Behind(kept) => kept.push_back(piece),
        }
        None
    }

    /// The rest of a piece that could not be handed over whole.
    pub fn keep_first(&mut self, rest: Py<PyBytes>) {
        if let Delivery::Direct = self.delivery {
            self.delivery = Delivery::Behind(Rare::default());
        }
        if let Delivery::Paused(kept) | Delivery::Behind(kept) = &mut self.delivery {
            kept.push_front(Piece::Data(rest));
        }
    }

    /// What is kept and comes next, unless reading is paused.
    pub fn next_kept(&mut self) -> Option<Piece> {
        let Delivery::Behind(kept) = &mut self.delivery else {
            return None;
        };
        let next = kept.pop_front();
        if kept.is_empty() {
            self.delivery = Delivery::Direct;
        }
        next
    }

    /// Whether the peer has ended its side.
    pub fn has_ended(&self) -> bool {
        self.way == Way::Ended
    }

    /// What is kept, for another transport.
    pub fn take_kept(&mut self) -> Rare<Piece> {
        match std::mem::replace(&mut self.delivery, Delivery::Direct) {
            Delivery::Direct => Rare::default(),
            Delivery::Paused(kept) | Delivery::Behind(kept) => kept,
        }
    }

    /// Begins with what another transport has kept, on a transport that has not begun.
    pub fn begin_with(&mut self, kept: Rare<Piece>, ended: bool, paused: bool) {
        if ended {
            self.way = Way::Ended;
        }
        if paused {
            self.delivery = Delivery::Paused(kept);
        } else if !kept.is_empty() {
            self.delivery = Delivery::Behind(kept);
        }
    }

    /// The transport closes: what is kept is dropped, and the op in flight ends.
    pub fn close(&mut self, io: &mut Io) {
        if let Delivery::Paused(kept) = &mut self.delivery {
            kept.clear();
        } else {
            self.delivery = Delivery::Direct;
        }
        self.op.stop(io);
    }
}
