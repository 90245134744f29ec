//! What a wire knows of its socket, and whether the next receive is worth a call.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use proact_driver::Token;
use pyo3::prelude::*;

use crate::reactor::hub::Hub;
use crate::reactor::parking::Parking;

/// So often a socket that always has more is received from before other greenlets run.
pub(super) const IN_A_ROW: u32 = 64;
/// A watch ends when it has told more often than this of bytes that nobody asks for.
pub(super) const UNHEARD: u32 = 64;
/// After so many tries in a row that found nothing, a receive waits for the watch.
pub(super) const TRIES: u32 = 4;
/// Once in so many receives that had to wait, the next one tries again.
const WAITS: u32 = 32;

/// What the watch has told of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// Once, and of nothing but bytes.
    Bytes,
    /// Perhaps of an end, an error or a mark behind the bytes, which a receive that gets bytes does not show.
    More,
}

pub(super) struct Held {
    /// The hub whose greenlets receive, and the socket's number. `None` before the first call and after the end.
    pub(super) bound: Option<(Py<Hub>, RawFd)>,
    /// The address of the socket. It is compared, and never dereferenced.
    pub(super) socket: usize,
    /// The watch in flight.
    pub(super) watch: Option<Token>,
    /// How often the watch has told of something that nobody has asked for since.
    pub(super) unheard: u32,
    /// Whether a receive may find something. If not, the watch will tell.
    pub(super) ready: bool,
    pub(super) in_a_row: u32,
    /// Whether it is a socket of TCP, of which nothing is left when a receive gets less than it has room for.
    pub(super) is_tcp: bool,
    /// What the watch has told since the last call, and whether that call found nothing of what was told before.
    pub(super) told: Told,
    pub(super) in_vain: bool,
    /// How many receives may still try in vain, and how many have waited since the last one that might.
    pub(super) tries: u32,
    pub(super) waits: u32,
    /// How long a call waits at most.
    pub(super) seconds: Option<f64>,
    /// The greenlets that wait to receive. The first is woken, and stays the first until it has received.
    pub(super) waiting: VecDeque<Py<Parking>>,
    /// Why those have ended that are in `waiting` no more.
    pub(super) error: i32,
}

impl Held {
    /// A receive has got something; it `is_all` that there was, if this is a socket of TCP.
    ///
    /// In the middle of a dialogue the answer is often there when it is asked for, and then neither the loop nor a switch is
    /// needed. So a receive tries, as long as that is not in vain each time.
    pub(super) fn received(&mut self, is_all: bool, waited: bool) {
        self.in_vain = false;
        if waited {
            self.in_a_row = 0;
            self.waits += 1;
            if self.waits >= WAITS {
                self.waits = 0;
                self.tries = self.tries.max(1);
            }
        } else {
            self.in_a_row += 1;
            self.tries = TRIES;
        }
        self.ready = !(is_all && self.is_tcp) || self.tries > 0;
    }
}
