//! Times at which something is due: a binary heap in which an entry that no longer counts stays until its time comes, or until
//! half of the heap does not count.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

struct Entry<T> {
    when: u64,
    order: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    /// Reversed, because `BinaryHeap` returns its greatest entry: that must be the earliest.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (other.when, other.order).cmp(&(self.when, self.order))
    }
}

pub struct Heap<T> {
    entries: BinaryHeap<Entry<T>>,
    /// Entries since the last look at the clock: one that ends within its turn never enters the heap.
    fresh: Vec<Entry<T>>,
    order: u64,
    /// How many entries don't count any more.
    stale: usize,
}

impl<T> Default for Heap<T> {
    fn default() -> Heap<T> {
        Heap {
            entries: BinaryHeap::new(),
            fresh: Vec::new(),
            order: 0,
            stale: 0,
        }
    }
}

/// So many stale entries, or fewer, are not worth a sweep.
const SWEEP: usize = 64;

impl<T> Heap<T> {
    /// Adds an entry for a time in nanoseconds. Returns its number, by which its owner tells whether it still counts.
    pub fn push(&mut self, when: u64, what: T) -> u64 {
        self.order += 1;
        let order = self.order;
        self.fresh.push(Entry { when, order, what });
        order
    }

    /// Notes that an entry does not count any more.
    pub fn spoil(&mut self) {
        self.stale += 1;
    }

    /// Moves new entries to the heap. What does not count goes to `dead`, which the caller drops when it holds no cell.
    fn settle(&mut self, counts: &impl Fn(&T, u64) -> bool, dead: &mut Vec<T>) {
        for entry in self.fresh.drain(..) {
            if self.stale == 0 || counts(&entry.what, entry.order) {
                self.entries.push(entry);
            } else {
                self.stale -= 1;
                dead.push(entry.what);
            }
        }
        if self.stale > SWEEP && self.stale > self.entries.len() / 2 {
            let entries = std::mem::take(&mut self.entries).into_vec();
            let mut living = Vec::with_capacity(entries.len());
            for entry in entries {
                if counts(&entry.what, entry.order) {
                    living.push(entry);
                } else {
                    dead.push(entry.what);
                }
            }
            self.entries = living.into();
            self.stale = 0;
        }
    }

    /// The earliest time.
    pub fn next(&mut self, counts: impl Fn(&T, u64) -> bool, dead: &mut Vec<T>) -> Option<u64> {
        self.settle(&counts, dead);
        while let Some(entry) = self.entries.peek() {
            if self.stale == 0 || counts(&entry.what, entry.order) {
                return Some(entry.when);
            }
            self.stale -= 1;
            dead.extend(self.entries.pop().map(|entry| entry.what));
        }
        None
    }

    /// Takes the earliest entry that is due at `now`.
    pub fn due(&mut self, now: u64, counts: impl Fn(&T, u64) -> bool, dead: &mut Vec<T>) -> Option<T> {
        self.settle(&counts, dead);
        while self.entries.peek().is_some_and(|entry| entry.when <= now) {
            let entry = self.entries.pop()?;
            if self.stale == 0 || counts(&entry.what, entry.order) {
                return Some(entry.what);
            }
            self.stale -= 1;
            dead.push(entry.what);
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.fresh.is_empty()
    }

    /// All that is in it, whether it counts or not.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().chain(&self.fresh).map(|entry| &entry.what)
    }

    /// Empties the heap.
    pub fn drain(&mut self) -> Vec<T> {
        self.stale = 0;
        let fresh = self.fresh.drain(..).map(|entry| entry.what);
        let rest = std::mem::take(&mut self.entries).into_iter();
        fresh.chain(rest.map(|entry| entry.what)).collect()
    }
}
