//! The buffers that `RecvMulti` receives into. They lie in one mapping and are lent to the kernel through a buffer
//! ring (io_uring_register_buf_ring(3)).
//!
//! A buffer is lent to the kernel, or held (it carries the bytes of a completion), or, if there is no buffer ring,
//! free.
//!
//! The mapping has its full size from the start, but only lent buffers get touched and so cost memory. Lending starts
//! small and doubles each time the ring runs out of buffers, so that only a process that sees bursts pays for them.
//! The buffer ring is locked memory and grows as well: a larger one is registered as another group before the smaller
//! one is removed, so that a refusal changes nothing. Receives that use the old group find no buffer there and are
//! submitted again.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::driver::Config;
use crate::errno::named;
use crate::fork::Generation;

/// The minimum number of entries of the first buffer ring: one page.
const FIRST: u16 = 256;
/// The maximum number of entries that the kernel allows (io_uring_register_buf_ring(3)).
const MAX: u16 = 1 << 15;
const MIN_SIZE: u32 = 16;

/// Anonymous memory, zeroed. It is unmapped on drop. After a leak its length is 0.
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

    /// Keeps a fork from inheriting the mapping. The kernel has pinned the pages: copy-on-write after a fork would
    /// give this process other pages, and the kernel would go on reading the old ones.
    fn not_inherited(self) -> Memory {
        // SAFETY: the value owns the mapping.
        unsafe { libc::madvise(self.base.cast(), self.len, libc::MADV_DONTFORK) };
        self
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // In a forked child another mapping may have taken the range.
        if self.len > 0 && self.generation.is_current() {
            // SAFETY: the value owns the mapping, and this unmaps all of it.
            unsafe { libc::munmap(self.base.cast(), self.len) };
        }
    }
}

// SAFETY: the value owns its mapping, and any thread may use memory.
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

pub(super) struct RecvBuffers {
    memory: Memory,
    /// The ring of entries shared with the kernel. `None`: there is no buffer ring, and the engine takes buffers from
    /// `free`.
    ring: Option<Memory>,
    /// How many entries the buffer ring has; without one, `max`.
    entries: u16,
    group: u16,
    /// The buffer ring ran out of buffers and had no entries for more.
    is_short: bool,
    tail: u16,
    free: Vec<u16>,
    /// For each buffer, whether it carries the bytes of a completion.
    held: Vec<bool>,
    held_count: u16,
    size: u32,
    lent: u16,
    max: u16,
}

impl RecvBuffers {
    /// Makes the buffers and, if `registers`, lends them to the ring. If the kernel refuses, the reason is returned
    /// as text, because the engine can do without a buffer ring.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new(
        ring: &Ring,
        config: &Config,
        registers: bool,
    ) -> io::Result<(RecvBuffers, Option<String>)> {
        let max = config.most_buffers();
        let size = config.buffer_size.clamp(MIN_SIZE, i32::MAX as u32);
        let mut buffers = RecvBuffers {
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
            // Growing is impossible if completions may come at any time: it is never known which buffers the kernel
            // has taken.
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

    /// Lends the buffers to a (new) ring. No other ring may use them any more. Held buffers are lent when they are
    /// given back.
    ///
    /// # Errors
    /// The errors of `io_uring_register(2)`. Nothing has changed then.
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

    /// Never frees the memory, because the kernel may still write to it.
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

    /// Doubles the number of lent buffers, up to the limit, because the ring ran out of them.
    pub(super) fn grow(&mut self) {
        let wanted = self.lent.saturating_mul(2).min(self.max);
        self.lend(wanted.min(self.entries));
        self.is_short = wanted > self.entries;
    }

    /// Whether more buffers could be lent after [`RecvBuffers::widen`].
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Moves to a buffer ring of twice the size. Every completion must have been taken out of the queue, and the
    /// kernel may complete nothing meanwhile: a buffer that is not held counts as free.
    ///
    /// # Errors
    /// The errors of `io_uring_register(2)`. Then the engine goes on with the buffers it has, and does not try again.
    pub(super) fn widen(&mut self, ring: &Ring) -> io::Result<()> {
        self.is_short = false;
        let (entries, group) = (self.entries, self.group);
        self.entries = entries * 2;
        self.group = group ^ 1;
        if let Err(error) = self.register(ring) {
            (self.entries, self.group, self.max) = (entries, group, entries);
            return Err(error);
        }
        // Frees locked memory for other rings. A failure does not matter: the memory is freed when the ring ends.
        let _ = ring.unregister_buffers(group);
        self.lend(self.entries.min(self.max));
        Ok(())
    }

    /// The group that new receives take their buffers from.
    pub(super) fn group(&self) -> u16 {
        self.group
    }

    /// Whether every lent buffer is held. Then a receive can only go on after a release.
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

    /// Marks a buffer as held, because a completion carries it.
    pub(super) fn take(&mut self, buffer: u16) {
        if let Some(held) = self.held.get_mut(usize::from(buffer)) {
            debug_assert!(!*held);
            *held = true;
            self.held_count += 1;
        }
    }

    /// Takes a free buffer, when there is no buffer ring that lets the kernel do so.
    pub(super) fn pick(&mut self) -> Option<u16> {
        let buffer = self.free.pop()?;
        self.take(buffer);
        Some(buffer)
    }

    /// The address and the length of a picked buffer.
    pub(super) fn room(&mut self, buffer: u16) -> (*mut u8, usize) {
        (self.address(buffer), self.size as usize)
    }

    /// The bytes of a held buffer; empty once the buffer was given back.
    pub(super) fn data(&self, buffer: u16, len: usize) -> &[u8] {
        if !self.held.get(usize::from(buffer)).is_some_and(|held| *held) {
            return &[];
        }
        let len = len.min(self.size as usize);
        // SAFETY: a held buffer lies within the memory, which is initialised (with zeros). The kernel does not touch
        // the buffer until it is given back, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }

    /// Gives a held buffer back. A second call does nothing.
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
        // SAFETY: the index is masked to the ring's size. The kernel reads an entry only after the tail has moved
        // past it, and there are no more buffers than entries, so the kernel does not read this entry now.
        let entry = unsafe { &mut *entries.add(usize::from(self.tail & (self.entries - 1))) };
        entry.set_addr(address as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, is aligned, and only this function writes it. Release publishes
        // the entry.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}
