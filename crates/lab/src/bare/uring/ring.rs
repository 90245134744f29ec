//! The io_uring server's ring, and the rings of buffers that its receives pick from.
//!
//! This file knows no connections. The owner must drop the ring before the buffers, because the kernel may write to
//! them as long as the ring lives.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};

/// When the kernel runs the work of completions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Mode {
    /// Only when the server waits for completions (SINGLE_ISSUER, DEFER_TASKRUN; Linux 6.1).
    Deferred,
    /// At the thread's next system call of any kind (COOP_TASKRUN; Linux 5.19).
    Cooperative,
    /// At once, by interrupting the thread.
    Plain,
}

/// Makes a ring with the best mode that this kernel supports, from `best` downwards.
pub(super) fn ring(entries: u32, best: Mode) -> io::Result<IoUring> {
    let build = |mode: Mode| {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_submit_all().setup_cqsize(entries * 4);
        match mode {
            Mode::Deferred => drop(builder.setup_single_issuer().setup_defer_taskrun()),
            Mode::Cooperative => drop(builder.setup_coop_taskrun().setup_taskrun_flag()),
            Mode::Plain => {}
        }
        builder.build(entries)
    };
    let mut built = build(best);
    for mode in [Mode::Cooperative, Mode::Plain] {
        if built.is_err() && mode > best {
            built = build(mode);
        }
    }
    let ring = built?;
    // Saves the look-up of the ring's fd in every call. It is optional, and missing before Linux 5.18.
    drop(ring.submitter().register_ring_fd());
    Ok(ring)
}

/// How many slots there are for accepted sockets: the kernel allows as many as open files.
pub(super) fn table_size() -> u32 {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: `limit` is valid and writable for the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    u32::try_from(limit.rlim_cur).unwrap_or(u32::MAX).min(1 << 15)
}

/// Anonymous memory, page-aligned, as `register_buf_ring` needs it.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of mmap, and nothing uses them after this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Buffers that the kernel picks from, first in, first out, when data arrives (io_uring_register_buf_ring(3)). So a
/// connection without data holds no buffer.
pub(super) struct ProvidedBuffers {
    entries: Mapping,
    memory: Mapping,
    group: u16,
    count: u16,
    size: u32,
    /// The entry for the next buffer that is given back. The kernel sees it after [`publish`](Self::publish).
    tail: u16,
    /// How many buffers the kernel has, including unpublished ones.
    free: u16,
}

impl ProvidedBuffers {
    /// Registers `count` (a power of two) buffers of `size` bytes as group `group`.
    pub(super) fn register(submitter: &Submitter<'_>, group: u16, count: u16, size: u32) -> io::Result<Self> {
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size as usize)?;
        // SAFETY: the address is of a page-aligned mapping with room for `count` entries, which outlives the ring.
        unsafe { submitter.register_buf_ring_with_flags(entries.base.as_ptr() as u64, count, group, 0) }?;
        let mut buffers = Self {
            entries,
            memory,
            group,
            count,
            size,
            tail: 0,
            free: 0,
        };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Notes that a completion carries one of the buffers.
    pub(super) fn take(&mut self) {
        self.free = self.free.saturating_sub(1);
    }

    /// The first `len` bytes of buffer `id`.
    pub(super) fn data(&self, id: u16, len: u32) -> &[u8] {
        let (id, len) = (usize::from(id % self.count), len.min(self.size) as usize);
        // SAFETY: buffer `id` lies within the mapping, which is initialised (anonymous memory is zeroed). The kernel
        // does not write to a buffer from the completion that carries it until it is given back.
        unsafe { std::slice::from_raw_parts(self.memory.base.as_ptr().add(id * self.size as usize), len) }
    }

    /// Gives buffer `id` back. The kernel gets it at the next [`publish`](Self::publish).
    pub(super) fn give_back(&mut self, id: u16) {
        let id = id % self.count;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies within the mapping. The kernel does not read entries at
        // or past the published tail. The fields are set one by one because the fourth field of entry 0 is the tail
        // itself.
        unsafe {
            let entry = &mut *self.entries.base.as_ptr().cast::<BufRingEntry>().add(slot);
            entry.set_addr(
                self.memory
                    .base
                    .as_ptr()
                    .add(usize::from(id) * self.size as usize) as u64,
            );
            entry.set_len(self.size);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    /// Makes the buffers that were given back visible to the kernel.
    pub(super) fn publish(&self) {
        // SAFETY: the mapping begins with the buffer ring's first entry. The tail in it is an aligned u16 that the
        // kernel only reads.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.base.as_ptr().cast());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}
