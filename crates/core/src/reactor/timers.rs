//! Timers: a binary heap of nanosecond deadlines, equal ones in the order they were set.
//!
//! Cancelling only marks the handle (O(1)). Marked ones are dropped when their time comes, or all at once when they
//! outnumber the living; a timer that is set and cancelled within one turn never enters the heap.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::reactor::handle::Cancelled;
use crate::reactor::ready::Ready;

struct Entry {
    when: u64,
    order: u64,
    handle: Ready,
}

impl Entry {
    /// Whether this one is cancelled. While none is, no handle has to be fetched into the cache to know.
    fn is_cancelled(&self, py: Python<'_>, cancelled: &Cancelled) -> bool {
        cancelled.count() > 0 && self.handle.is_cancelled(py)
    }
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
            if entry.is_cancelled(py, &self.cancelled) {
                self.cancelled.discount();
                dead.push(entry.handle);
            } else {
                self.heap.push(entry);
            }
        }
        let cancelled = self.cancelled.count();
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
            self.cancelled.reset();
        }
    }

    /// The earliest deadline. What was cancelled goes to `dead`, for the caller to drop when it holds no guard.
    pub fn next(&mut self, py: Python<'_>, dead: &mut Vec<Ready>) -> Option<u64> {
        self.settle(py, dead);
        while let Some(entry) = self.heap.peek() {
            if !entry.is_cancelled(py, &self.cancelled) {
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
            if entry.is_cancelled(py, &self.cancelled) {
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
