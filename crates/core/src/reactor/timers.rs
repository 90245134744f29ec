//! Timers: a binary heap of deadlines in nanoseconds. Timers of the same time run in the order in which they were set.
//!
//! Cancelling only marks the handle (O(1)). A marked timer is dropped when its time comes, or with all others when more than
//! half of the heap is marked. A timer that is set and cancelled within one turn never enters the heap.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::reactor::handle::{Callback, Cancelled};
use crate::reactor::ready::{Locked, Ready};

struct Entry {
    when: u64,
    order: u64,
    callback: Callback,
}

impl Entry {
    /// Whether this timer is cancelled. If no timer is, the handle is not even read.
    fn is_cancelled(&self, py: Python<'_>, cancelled: &Cancelled) -> bool {
        cancelled.count() > 0 && self.callback.is_cancelled(py)
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
    /// Reversed, because `BinaryHeap` returns its greatest entry: that must be the earliest.
    fn cmp(&self, other: &Entry) -> Order {
        (other.when, other.order).cmp(&(self.when, self.order))
    }
}

pub struct Timers {
    heap: BinaryHeap<Entry>,
    /// Timers that were set since the last look at the clock.
    fresh: Vec<Entry>,
    order: u64,
    cancelled: Arc<Cancelled>,
}

/// So many cancelled timers, or fewer, are not worth a sweep.
const SWEEP: usize = 64;

impl Timers {
    /// `cancelled`: each timer adds one to it when it is cancelled while it waits.
    pub fn new(cancelled: Arc<Cancelled>) -> Timers {
        Timers {
            heap: BinaryHeap::new(),
            fresh: Vec::new(),
            order: 0,
            cancelled,
        }
    }

    /// `when`: nanoseconds of the monotonic clock.
    pub fn push(&mut self, when: u64, callback: Callback) {
        self.order += 1;
        self.fresh.push(Entry {
            when,
            order: self.order,
            callback,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.fresh.is_empty()
    }

    /// Moves new timers to the heap. Those that are cancelled already go to `dead`.
    fn settle(&mut self, py: Python<'_>, dead: &mut Vec<Callback>) {
        for entry in self.fresh.drain(..) {
            if entry.is_cancelled(py, &self.cancelled) {
                self.cancelled.discount();
                dead.push(entry.callback);
            } else {
                self.heap.push(entry);
            }
        }
        let cancelled = self.cancelled.count();
        if cancelled > SWEEP && cancelled > self.heap.len() / 2 {
            let mut living = Vec::with_capacity(self.heap.len());
            for entry in std::mem::take(&mut self.heap).into_vec() {
                if entry.callback.is_cancelled(py) {
                    dead.push(entry.callback)
                } else {
                    living.push(entry)
                }
            }
            self.heap = living.into();
            self.cancelled.reset();
        }
    }

    /// The earliest deadline. Cancelled timers go to `dead`, for the caller to drop when it holds no cell.
    pub fn next(&mut self, py: Python<'_>, dead: &mut Vec<Callback>) -> Option<u64> {
        self.settle(py, dead);
        while let Some(entry) = self.heap.peek() {
            if !entry.is_cancelled(py, &self.cancelled) {
                return Some(entry.when);
            }
            self.cancelled.discount();
            dead.extend(self.heap.pop().map(|entry| entry.callback));
        }
        None
    }

    /// Moves timers that are due at `now` to the ready queue, the earliest first.
    pub fn due(&mut self, py: Python<'_>, now: u64, ready: &mut Locked<'_>, dead: &mut Vec<Callback>) {
        self.settle(py, dead);
        while self.heap.peek().is_some_and(|entry| entry.when <= now) {
            let Some(entry) = self.heap.pop() else { break };
            if entry.is_cancelled(py, &self.cancelled) {
                self.cancelled.discount();
                dead.push(entry.callback);
            } else {
                ready.push(Ready::Callback(entry.callback));
            }
        }
    }

    /// Everything, for a loop that closes.
    pub fn drain(&mut self) -> Vec<Callback> {
        let fresh = self.fresh.drain(..).map(|entry| entry.callback);
        fresh
            .chain(
                std::mem::take(&mut self.heap)
                    .into_iter()
                    .map(|entry| entry.callback),
            )
            .collect()
    }

    pub fn callbacks(&self) -> impl Iterator<Item = &Callback> {
        self.heap.iter().chain(&self.fresh).map(|entry| &entry.callback)
    }
}
