//! What an engine counts about itself: plain counters, bumped on the loop's thread, read at any time.

use crate::ops::OpKind;

const KINDS: usize = OpKind::ALL.len();

/// Counters since the engine was opened.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    submitted: [u64; KINDS],
    completed: [u64; KINDS],
    /// System calls the engine made.
    pub syscalls: u64,
    /// Time inside the waiting call, in nanoseconds.
    pub wait_ns: u64,
    /// Ops in flight now, the engine's own excepted.
    pub in_flight: usize,
    pub in_flight_max: usize,
    /// Buffers lent to the ring.
    pub buffers: u64,
    /// Receives that found the buffer ring dry.
    pub buffer_exhaustions: u64,
    /// Times the completion queue overflowed (nothing is lost: the kernel keeps a backlog).
    pub overflows: u64,
    /// Times epoll's set was made anew, because it reported a file that was closed while a duplicate lives.
    pub rebuilds: u64,
    /// What the engine does another way than it would like, and why: one line each.
    pub fallbacks: Vec<String>,
}

impl Stats {
    pub(crate) fn new(fallbacks: Vec<String>) -> Stats {
        Stats {
            fallbacks,
            ..Stats::default()
        }
    }

    /// An op was handed over.
    pub(crate) fn submit(&mut self, kind: OpKind) {
        self.submitted[kind as usize] += 1;
        self.in_flight += 1;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
    }

    /// An op was done at its submission.
    pub(crate) fn done_at_once(&mut self, kind: OpKind) {
        self.submitted[kind as usize] += 1;
        self.completed[kind as usize] += 1;
    }

    /// A completion was handed back; `terminal`: the op is over.
    pub(crate) fn complete(&mut self, kind: OpKind, terminal: bool) {
        self.completed[kind as usize] += 1;
        self.in_flight -= usize::from(terminal);
    }

    /// Ops submitted, by kind, where there were any.
    pub fn submitted(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        by_kind(&self.submitted)
    }

    /// Completions delivered, by kind, where there were any.
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
