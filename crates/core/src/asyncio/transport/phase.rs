//! The life of a transport over an fd.
//!
//! ```text
//!         _start          close              everything is sent
//!   New ────────> Open ───────────> Closing ─────────────────────> Closed
//!    │             │                   │                             ▲
//!    └─────────────┴──> Lost <─────────┘                             │
//!      abort, an error   └───────────────────────────────────────────┘
//!                                  no op is in flight
//! ```
//!
//! A datagram transport goes from `Closing` to `Lost`, for it has a queue only while it is full.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Made, `connection_made` not called yet.
    New,
    Open,
    /// Closing: nothing more is received or accepted for sending, what is queued still goes out.
    Closing,
    /// `connection_lost` is due as soon as no op is in flight.
    Lost,
    /// `connection_lost` was called and the fd is closed.
    Closed,
}

impl Phase {
    /// As a repr shows it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::New => "new",
            Phase::Open => "open",
            Phase::Closing | Phase::Lost => "closing",
            Phase::Closed => "closed",
        }
    }
}
