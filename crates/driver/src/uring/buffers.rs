//! The buffers that `RecvMulti` receives into: one stretch of memory, lent to the kernel through a buffer ring.
//!
//! A buffer is with the kernel, or held (it carries a completion's bytes), or, where there is no buffer ring, free.
//! The stretch is reserved at its full size but only what is lent gets touched: lending starts small and doubles each
//! time the ring runs dry, so that many bursts cost memory only once they happen. The buffer ring, which is locked memory,
//! grows with it: a larger one is registered as another group before the smaller one goes, so that a refusal changes
//! nothing. Receives that still are on the old group find no buffer there and are submitted again.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::driver::Config;
use crate::errno::named;
use crate::fork::Generation;

/// Entries of the first buffer ring, at least: one page of them.
const FIRST: u16 = 256;
/// What the kernel allows in one buffer ring.
const MAX: u16 = 1 << 15;
const MIN_SIZE: u32 = 16;

/// Anonymous memory, zeroed, unmapped on drop; of length 0 once it is leaked.
struct Memory {
    base: *mut u8,
    len: usize,
    generation: Generation,
}

impl Memory {
    fn new(len: usize) -> io::Result<Memory> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Memory {
            base: base.cast(),
            len,
            generation: Generation::current(),
        })
    }

    /// A fork does not inherit it. Where the kernel has pinned the pages, copy-on-write after a fork would leave it
    /// reading pages that we no longer write to.
    fn not_inherited(self) -> Memory {
        // SAFETY: our own mapping.
        unsafe { libc::madvise(self.base.cast(), self.len, libc::MADV_DONTFORK) };
        self
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // In a forked child the range may be somebody else's by now.
        if self.len > 0 && self.generation.is_current() {
            // SAFETY: our own mapping, whole.
            unsafe { libc::munmap(self.base.cast(), self.len) };
        }
    }
}

// SAFETY: plain memory, owned.
unsafe impl Send for Memory {}

impl Config {
    fn most_buffers(&self) -> u16 {
        self.max_buffers
            .max(self.buffers)
            .clamp(1, MAX)
            .next_power_of_two()
    }

    pub(crate) fn first_buffer_entries(&self) -> u16 {
        self.buffers
            .clamp(1, MAX)
            .next_power_of_two()
            .max(FIRST)
            .min(self.most_buffers())
    }
}

pub(super) struct Buffers {
    memory: Memory,
    /// The ring of entries shared with the kernel; `None`: no buffer ring, buffers go through `free`.
    ring: Option<Memory>,
    /// How many buffers it has room for; without a ring, all.
    entries: u16,
    group: u16,
    /// It ran dry with no room for more.
    is_short: bool,
    tail: u16,
    free: Vec<u16>,
    /// Whether a buffer carries a completion's bytes.
    held: Vec<bool>,
    held_count: u16,
    size: u32,
    lent: u16,
    max: u16,
}

impl Buffers {
    /// Makes the buffers and, if `registers`, lends them to the ring. A refusal is returned as text, not an error.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new(
        ring: &Ring,
        config: &Config,
        registers: bool,
    ) -> io::Result<(Buffers, Option<String>)> {
        let max = config.most_buffers();
        let size = config.buffer_size.clamp(MIN_SIZE, i32::MAX as u32);
        let mut buffers = Buffers {
            memory: Memory::new(usize::from(max) * size as usize)?,
            ring: None,
            entries: if registers {
                config.first_buffer_entries()
            } else {
                max
            },
            group: 0,
            is_short: false,
            tail: 0,
            free: Vec::new(),
            held: vec![false; usize::from(max)],
            held_count: 0,
            size,
            lent: 0,
            max,
        };
        if registers && !ring.is_inert() {
            // Where completions may come at any time it is never known which buffers the kernel has taken.
            buffers.entries = max;
        }
        let mut refusal = None;
        if registers && let Err(error) = buffers.register(ring) {
            refusal = Some(named(&error));
            buffers.entries = max;
        }
        buffers.lend(config.buffers.clamp(1, max));
        Ok((buffers, refusal))
    }

    /// Lends the buffers to a (new) ring, which no other ring may use any more; those held follow when they are given
    /// back.
    ///
    /// # Errors
    /// As `io_uring_register(2)`; nothing has changed then.
    pub(super) fn register(&mut self, ring: &Ring) -> io::Result<()> {
        let entries = Memory::new(usize::from(self.entries) * size_of::<BufRingEntry>())?.not_inherited();
        ring.register_buffers(entries.base, self.entries, self.group)?;
        self.ring = Some(entries);
        self.tail = 0;
        for buffer in 0..self.lent {
            if !self.held[usize::from(buffer)] {
                self.hand_over(buffer);
            }
        }
        Ok(())
    }

    /// The memory stays for good: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.memory.len = 0;
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    fn lend(&mut self, up_to: u16) {
        for buffer in self.lent..up_to {
            self.hand_over(buffer);
        }
        self.lent = self.lent.max(up_to);
    }

    /// The ring ran dry: doubles what is lent, up to the limit.
    pub(super) fn grow(&mut self) {
        let wanted = self.lent.saturating_mul(2).min(self.max);
        self.lend(wanted.min(self.entries));
        self.is_short = wanted > self.entries;
    }

    /// Whether more could be lent if [`Buffers::widen`] made room.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Moves to a buffer ring of twice the size. All that the kernel has completed must have been taken, and it may
    /// complete nothing meanwhile: what is not held then is free.
    ///
    /// # Errors
    /// As `io_uring_register(2)`: it goes on with what it has, and does not ask again.
    pub(super) fn widen(&mut self, ring: &Ring) -> io::Result<()> {
        self.is_short = false;
        let (entries, group) = (self.entries, self.group);
        self.entries = entries * 2;
        self.group = group ^ 1;
        if let Err(error) = self.register(ring) {
            (self.entries, self.group, self.max) = (entries, group, entries);
            return Err(error);
        }
        // What it frees counts for others; the ring's end frees it as well.
        let _ = ring.unregister_buffers(group);
        self.lend(self.entries.min(self.max));
        Ok(())
    }

    /// The group that receives take their buffers from.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Every buffer is held by somebody: only a release helps a receive that finds none.
    pub(super) fn are_all_held(&self) -> bool {
        self.held_count >= self.lent
    }

    pub(super) fn lent(&self) -> u16 {
        self.lent
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        self.memory
            .base
            .wrapping_add(usize::from(buffer) * self.size as usize)
    }

    /// A completion names the buffer: it is the submitter's until given back.
    pub(super) fn take(&mut self, buffer: u16) {
        if let Some(held) = self.held.get_mut(usize::from(buffer)) {
            debug_assert!(!*held);
            *held = true;
            self.held_count += 1;
        }
    }

    /// A free buffer, where there is no ring to pick one.
    pub(super) fn pick(&mut self) -> Option<u16> {
        let buffer = self.free.pop()?;
        self.take(buffer);
        Some(buffer)
    }

    /// Where a buffer picked is, and its length.
    pub(super) fn room(&mut self, buffer: u16) -> (*mut u8, usize) {
        (self.address(buffer), self.size as usize)
    }

    /// The bytes of a held buffer; nothing once it was given back.
    pub(super) fn data(&self, buffer: u16, len: usize) -> &[u8] {
        if !self.held.get(usize::from(buffer)).is_some_and(|held| *held) {
            return &[];
        }
        let len = len.min(self.size as usize);
        // SAFETY: a held buffer lies within the memory, which is initialised (zeros at first); the kernel does not
        // touch it until it is given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }

    /// Gives a held buffer back; giving it back twice does nothing.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let held = self.held.get_mut(usize::from(buffer));
        if held.is_some_and(std::mem::take) {
            self.held_count -= 1;
            self.hand_over(buffer);
        }
    }

    fn hand_over(&mut self, buffer: u16) {
        let address = self.address(buffer);
        let Some(ring) = &self.ring else {
            self.free.push(buffer);
            return;
        };
        let entries = ring.base.cast::<BufRingEntry>();
        // SAFETY: the index is masked to the ring's size; the kernel reads the entry only after the tail moves. There
        // are no more buffers than entries, so the slot is not one that the kernel may still read.
        let entry = unsafe { &mut *entries.add(usize::from(self.tail & (self.entries - 1))) };
        entry.set_addr(address as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned, and is only written here; release publishes the entry.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}
