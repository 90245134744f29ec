//! The buffers that `RecvMulti` receives into: one stretch of memory, lent to the kernel through a buffer ring.
//!
//! A buffer is with the kernel, or held (it carries a completion's bytes), or, where there is no buffer ring, free.
//! The stretch is reserved at its full size but only what is lent gets touched: lending starts small and doubles each
//! time the ring runs dry, so that many bursts cost memory only once they happen.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::driver::Config;
use crate::fork::Generation;
use crate::probe::named;

/// The buffer group's number.
pub(super) const GROUP: u16 = 0;
/// What the kernel allows in one buffer ring.
const MAX: u16 = 1 << 15;
const MIN_SIZE: u32 = 16;

/// Anonymous memory, zeroed, unmapped on drop.
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
        if self.generation.is_current() {
            // SAFETY: our own mapping, whole.
            unsafe { libc::munmap(self.base.cast(), self.len) };
        }
    }
}

// SAFETY: plain memory, owned.
unsafe impl Send for Memory {}

pub(super) struct Buffers {
    memory: Memory,
    /// The ring of entries shared with the kernel; `None`: no buffer ring, buffers go through `free`.
    ring: Option<Memory>,
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
        let max = config
            .max_buffers
            .max(config.buffers)
            .clamp(1, MAX)
            .next_power_of_two();
        let size = config.buffer_size.clamp(MIN_SIZE, i32::MAX as u32);
        let mut buffers = Buffers {
            memory: Memory::new(usize::from(max) * size as usize)?,
            ring: None,
            tail: 0,
            free: Vec::new(),
            held: vec![false; usize::from(max)],
            held_count: 0,
            size,
            lent: 0,
            max,
        };
        let refusal = if registers {
            buffers.register(ring).err().map(|error| named(&error))
        } else {
            None
        };
        buffers.lend(config.buffers.clamp(1, max));
        Ok((buffers, refusal))
    }

    /// Lends the buffers to a (new) ring; those held follow when they are given back.
    ///
    /// # Errors
    /// As `io_uring_register(2)`.
    pub(super) fn register(&mut self, ring: &Ring) -> io::Result<()> {
        let entries = Memory::new(usize::from(self.max) * size_of::<BufRingEntry>())?.not_inherited();
        ring.register_buffers(entries.base, self.max, GROUP)?;
        self.ring = Some(entries);
        self.tail = 0;
        for buffer in 0..self.lent {
            if !self.held[usize::from(buffer)] {
                self.hand_over(buffer);
            }
        }
        Ok(())
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
        self.lend(self.lent.saturating_mul(2).min(self.max));
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
        let entry = unsafe { &mut *entries.add(usize::from(self.tail & (self.max - 1))) };
        entry.set_addr(address as u64);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, aligned, and is only written here; release publishes the entry.
        let tail = unsafe { &*BufRingEntry::tail(entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}
