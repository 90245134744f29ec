//! Timers: a binary heap of nanosecond deadlines, equal ones in the order they were set.
//!
//! Cancelling only marks the handle (O(1)). Marked ones are dropped when their time comes, or all at once when they
//! outnumber the living; a timer that is set and cancelled within one turn never enters the heap.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;

use crate::ready::Ready;

/// How many timers were cancelled since the heap was last swept.
#[derive(Default)]
pub struct Cancelled(AtomicUsize);

impl Cancelled {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this one is cancelled. While none is, no handle has to be fetched into the cache to know.
    fn concerns(&self, py: Python<'_>, entry: &Entry) -> bool {
        self.0.load(Ordering::Relaxed) > 0 && entry.handle.is_cancelled(py)
    }

    /// One of them was dropped. The count may be off, for one that is not known to be cancelled calls nothing.
    fn discount(&self) {
        let less = |count: usize| count.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

struct Entry {
    when: u64,
    order: u64,
    handle: Ready,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Order::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Order> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Entry) -> Order {
        (other.when, other.order).cmp(&(self.when, self.order))
    }
}

pub struct Timers {
    heap: BinaryHeap<Entry>,
    /// Set since the last look at the clock.
    fresh: Vec<Entry>,
    order: u64,
    cancelled: Arc<Cancelled>,
}

/// Fewer than this are not worth a sweep.
const SWEEP: usize = 64;

impl Timers {
    /// `cancelled` is counted up by each timer that is cancelled while it waits.
    pub fn new(cancelled: Arc<Cancelled>) -> Timers {
        Timers {
            heap: BinaryHeap::new(),
            fresh: Vec::new(),
            order: 0,
            cancelled,
        }
    }

    /// `when`: nanoseconds of the monotonic clock.
    pub fn push(&mut self, when: u64, handle: Ready) {
        self.order += 1;
        self.fresh.push(Entry {
            when,
            order: self.order,
            handle,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.fresh.is_empty()
    }

    /// Takes the new ones in, less those cancelled already, which are handed out to be dropped.
    fn settle(&mut self, py: Python<'_>, dead: &mut Vec<Ready>) {
        for entry in self.fresh.drain(..) {
            if self.cancelled.concerns(py, &entry) {
                self.cancelled.discount();
                dead.push(entry.handle);
            } else {
                self.heap.push(entry);
            }
        }
        let cancelled = self.cancelled.0.load(Ordering::Relaxed);
        if cancelled > SWEEP && cancelled > self.heap.len() / 2 {
            let mut living = Vec::with_capacity(self.heap.len());
            for entry in std::mem::take(&mut self.heap).into_vec() {
                if entry.handle.is_cancelled(py) {
                    dead.push(entry.handle)
                } else {
                    living.push(entry)
                }
            }
            self.heap = living.into();
            self.cancelled.0.store(0, Ordering::Relaxed);
        }
    }

    /// The earliest deadline. What was cancelled goes to `dead`, for the caller to drop when it holds no guard.
    pub fn next(&mut self, py: Python<'_>, dead: &mut Vec<Ready>) -> Option<u64> {
        self.settle(py, dead);
        while let Some(entry) = self.heap.peek() {
            if !self.cancelled.concerns(py, entry) {
                return Some(entry.when);
            }
            self.cancelled.discount();
            dead.extend(self.heap.pop().map(|entry| entry.handle));
        }
        None
    }

    /// Moves what is due at `now` out, earliest first.
    pub fn due(&mut self, py: Python<'_>, now: u64, out: &mut Vec<Ready>, dead: &mut Vec<Ready>) {
        self.settle(py, dead);
        while self.heap.peek().is_some_and(|entry| entry.when <= now) {
            let Some(entry) = self.heap.pop() else { break };
            if self.cancelled.concerns(py, &entry) {
                self.cancelled.discount();
                dead.push(entry.handle);
            } else {
                out.push(entry.handle);
            }
        }
    }

    /// Everything, for a loop that closes.
    pub fn drain(&mut self) -> Vec<Ready> {
        let fresh = self.fresh.drain(..).map(|entry| entry.handle);
        fresh
            .chain(
                std::mem::take(&mut self.heap)
                    .into_iter()
                    .map(|entry| entry.handle),
            )
            .collect()
    }

    pub fn handles(&self) -> impl Iterator<Item = &Ready> {
        self.heap.iter().chain(&self.fresh).map(|entry| &entry.handle)
    }
}

/// Seconds of the monotonic clock as nanoseconds; what lies outside the range is the nearest end of it.
pub fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The monotonic clock, in nanoseconds: the same that `time.monotonic()` reads.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a local timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
