//! What an engine counts about itself: plain counters. The loop's thread increments them; anybody may read them at
//! any time.

use crate::ops::OpKind;

const KINDS: usize = OpKind::ALL.len();

/// Counters since the engine was opened.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    submitted: [u64; KINDS],
    completed: [u64; KINDS],
    /// Ops that were handed to the pool of threads. An op that goes there again counts again.
    pub pooled: u64,
    /// System calls the engine made.
    pub syscalls: u64,
    /// Time in the system call that waits, in nanoseconds.
    pub wait_ns: u64,
    /// Ops in flight now. The engine's own entries do not count.
    pub in_flight: usize,
    pub in_flight_max: usize,
    /// Buffers that the ring may receive into.
    pub buffers: u64,
    /// Receives that found no free buffer.
    pub buffer_exhaustions: u64,
    /// Times the completion queue overflowed. Nothing is lost: the kernel keeps a backlog (`IORING_FEAT_NODROP` of
    /// `io_uring_setup(2)`).
    pub overflows: u64,
    /// Times the engine made a new epoll set, because the old one reported a file that had been closed while a
    /// duplicate of it was open.
    pub rebuilds: u64,
    /// One line for each thing that the engine does in a slower way than it could, with the reason.
    pub fallbacks: Vec<String>,
}

impl Stats {
    pub(crate) fn new(fallbacks: Vec<String>) -> Stats {
        Stats {
            fallbacks,
            ..Stats::default()
        }
    }

    /// An op was submitted and is in flight.
    pub(crate) fn submit(&mut self, kind: OpKind) {
        self.submitted[kind as usize] += 1;
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    /// An op completed during its submission.
    pub(crate) fn done_at_once(&mut self, kind: OpKind) {
        self.submitted[kind as usize] += 1;
        self.completed[kind as usize] += 1;
    }

    /// A completion was delivered. `terminal`: the op is over.
    pub(crate) fn complete(&mut self, kind: OpKind, terminal: bool) {
        self.completed[kind as usize] += 1;
        self.in_flight -= usize::from(terminal);
    }

    /// Ops submitted, by kind. Kinds without any are left out.
    pub fn submitted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        by_kind(&self.submitted)
    }

    /// Completions delivered, by kind. Kinds without any are left out.
    pub fn completed(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        by_kind(&self.completed)
    }
}

fn by_kind(counts: &[u64; KINDS]) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    OpKind::ALL
        .iter()
        .map(|kind| (kind.name(), counts[*kind as usize]))
        .filter(|(_, count)| *count > 0)
}
