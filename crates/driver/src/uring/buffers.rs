//! The buffers that `RecvMulti` receives into: one stretch of memory, lent to the kernel through a buffer ring.
//!
//! A buffer is with the kernel, or taken (it carries a completion's bytes), or, where there is no buffer ring, free.
//! The stretch is reserved at its full size but only what is lent gets touched: lending starts small and doubles each
//! time the ring runs dry, so that many bursts cost memory only once they happen.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::driver::Config;

/// The buffer group's number.
pub(super) const GROUP: u16 = 0;

/// Anonymous memory, zeroed, unmapped on drop and not inherited by a fork.
struct Memory {
    base: *mut u8,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> io::Result<Memory> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: our own mapping. Copy-on-write after a fork would leave the kernel writing to pages we no longer see.
        unsafe { libc::madvise(base, len, libc::MADV_DONTFORK) };
        Ok(Memory {
            base: base.cast(),
            len,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole. In a forked child the range is not mapped, which munmap allows.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

// SAFETY: plain memory, owned.
unsafe impl Send for Memory {}

pub(super) struct Buffers {
    memory: Option<Memory>,
    /// The ring of entries shared with the kernel; `None`: no buffer ring, buffers go through `free`.
    ring: Option<Memory>,
    tail: u16,
    free: Vec<u16>,
    size: u32,
    lent: u16,
    max: u16,
}

impl Buffers {
    /// Makes the buffers and, if `registers`, lends them to the ring. A refusal is returned as text, not an error.
    pub(super) fn new(ring: &Ring, config: &Config, registers: bool) -> (Buffers, Option<String>) {
        let max = config
            .max_buffers
            .max(config.buffers)
            .next_power_of_two()
            .min(1 << 15);
        let mut buffers = Buffers {
            memory: Memory::new(usize::from(max) * config.buffer_size as usize).ok(),
            ring: None,
            tail: 0,
            free: Vec::new(),
            size: config.buffer_size,
            lent: 0,
            max,
        };
        let mut refusal = None;
        if registers {
            match Memory::new(usize::from(max) * size_of::<BufRingEntry>()) {
                Ok(memory) => match ring.register_buffers(memory.base, max, GROUP) {
                    Ok(()) => buffers.ring = Some(memory),
                    Err(error) => refusal = Some(error.to_string()),
                },
                Err(error) => refusal = Some(error.to_string()),
            }
        }
        buffers.lend(config.buffers.min(max));
        (buffers, refusal)
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    fn lend(&mut self, up_to: u16) {
        if self.memory.is_none() {
            return;
        }
        for buffer in self.lent..up_to {
            self.give_back(buffer);
        }
        self.lent = self.lent.max(up_to);
    }

    /// Doubles what is lent, up to the limit.
    pub(super) fn grow(&mut self) {
        self.lend(self.lent.saturating_mul(2).min(self.max));
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        let base = self
            .memory
            .as_ref()
            .map_or(std::ptr::null_mut(), |memory| memory.base);
        base.wrapping_add(usize::from(buffer) * self.size as usize)
    }

    /// A completion names the buffer: it is the caller's until given back.
    pub(super) fn taken(&mut self, buffer: u16) {
        debug_assert!(buffer < self.lent);
    }

    /// A free buffer, where there is no ring to pick one.
    pub(super) fn take_free(&mut self) -> Option<u16> {
        self.free.pop()
    }

    pub(super) fn slice_mut(&mut self, buffer: u16) -> (*mut u8, usize) {
        (self.address(buffer), self.size as usize)
    }

    pub(super) fn data(&self, buffer: u16, len: usize) -> &[u8] {
        debug_assert!(len <= self.size as usize);
        // SAFETY: a taken buffer: the kernel wrote `len` bytes of it and does not touch it until it is given back,
        // which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }

    pub(super) fn give_back(&mut self, buffer: u16) {
        let address = self.address(buffer);
        let Some(ring) = &self.ring else {
            self.free.push(buffer);
            return;
        };
        let entries = ring.base.cast::<BufRingEntry>();
        // SAFETY: the index is masked to the ring's size; the kernel reads the entry only after the tail moves.
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
