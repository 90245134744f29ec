//! The table in shared memory: a slot for each thread, with a row for each kind of call, and the events of a trace.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use super::call::{Call, KINDS, Role};
use super::clock::monotonic_ns;
use crate::sockets::check;

/// How many threads have a slot. Later threads are counted as lost.
const SLOTS: usize = 12_000;
/// How many calls a trace holds. Later calls are counted as lost.
const EVENTS: usize = 262_144;
const MAGIC: u64 = 0x7072_6f61_6374_0001;

#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    pub slots: AtomicU64,
    pub tracing: AtomicU64,
    pub events: AtomicU64,
    /// How much a wrapper adds to a call, in nanoseconds.
    pub overhead: AtomicU64,
}

/// Totals of one kind of call of one thread. Times in nanoseconds.
#[repr(C)]
pub(super) struct Row {
    pub count: AtomicU64,
    pub wall: AtomicU64,
    pub cpu: AtomicU64,
    pub run_queue: AtomicU64,
    pub bytes: AtomicU64,
    pub empty: AtomicU64,
}

/// The accounts of one thread. Only that thread writes them. `version` is odd during a change.
#[repr(C)]
pub(super) struct Slot {
    pub version: AtomicU64,
    pub thread: AtomicU64,
    /// The kind of call that the thread is in (0: none), and since when: a snapshot includes the unfinished call.
    pub state: AtomicU64,
    pub since: AtomicU64,
    pub cpu_seen: AtomicU64,
    pub run_queue_seen: AtomicU64,
    pub ring_ops: AtomicU64,
    pub rows: [Row; KINDS],
}

#[repr(C)]
pub(super) struct EventEntry {
    pub thread: AtomicU64,
    pub call: AtomicU64,
    pub fd: AtomicI64,
    pub start: AtomicU64,
    pub end: AtomicU64,
    pub cpu: AtomicU64,
    pub run_queue: AtomicU64,
    pub errno: AtomicI64,
    /// Written last. A result of 0 or more is stored plus one, because 0 means an event that is not complete.
    pub result: AtomicI64,
}

#[repr(C)]
struct Layout {
    header: Header,
    slots: [Slot; SLOTS],
    events: [EventEntry; EVENTS],
}

/// A mapping of the table. It is never unmapped in the process that is accounted for.
pub(super) struct Table(*const Layout);

// SAFETY: everything in it is atomic.
unsafe impl Send for Table {}
// SAFETY: everything in it is atomic.
unsafe impl Sync for Table {}

impl Table {
    pub fn map(fd: &OwnedFd) -> io::Result<Table> {
        // SAFETY: all zeros is a valid stat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: fstat only writes to `stat`.
        check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
        if stat.st_size as usize != size_of::<Layout>() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file of exactly this size.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Layout>(),
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let table = Table(address.cast());
        if table.header().magic.load(Relaxed) != MAGIC {
            table.unmap();
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(table)
    }

    fn layout(&self) -> &Layout {
        // SAFETY: the mapping is as large as a Layout, and any bytes are valid values of its atomics.
        unsafe { &*self.0 }
    }

    pub fn header(&self) -> &Header {
        &self.layout().header
    }

    /// Takes a slot for a new thread.
    pub fn claim(&self) -> Option<&Slot> {
        let index = self.header().slots.fetch_add(1, Relaxed) as usize;
        self.layout().slots.get(index)
    }

    /// Takes room for an event, if a trace is running and has any left.
    pub fn event(&self) -> Option<&EventEntry> {
        if self.header().tracing.load(Relaxed) == 0 {
            return None;
        }
        let index = self.header().events.fetch_add(1, Relaxed) as usize;
        self.layout().events.get(index)
    }

    fn unmap(&self) {
        // SAFETY: the mapping is the table's own, and nothing uses it after this.
        unsafe { libc::munmap(self.0.cast_mut().cast(), size_of::<Layout>()) };
    }
}

/// Totals of one kind of call of one thread. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallTimes {
    pub count: u64,
    /// From entry to return.
    pub wall: u64,
    /// The part of `wall` on a CPU.
    pub cpu: u64,
    /// The part of `wall` in which the thread was runnable but not running.
    pub run_queue: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Returns with `EAGAIN`.
    pub empty: u64,
}

/// The totals at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the last thread's slot was read, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// Every thread that has made a call, including threads that have ended.
    pub threads: Vec<ThreadTimes>,
    /// How many threads got no slot.
    pub lost: u64,
    pub overhead: u64,
}

/// The totals of one thread at one moment.
#[derive(Clone, Debug)]
pub struct ThreadTimes {
    /// The thread's slot. Unlike the id, no later thread gets it.
    pub slot: usize,
    pub thread: u64,
    pub ring_ops: u64,
    totals: [CallTimes; KINDS],
}

impl ThreadTimes {
    /// Name, role and totals of each kind of call that the thread has made. The first two are the time between calls and the
    /// probe's own.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, Role, CallTimes)> {
        let totals = Call::ALL.iter().zip(&self.totals);
        totals
            .filter(|(_, times)| times.count > 0 || times.wall > 0)
            .map(|(call, times)| (call.name(), call.role(), *times))
    }
}

/// One call in a trace. Times in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub thread: u64,
    pub call: &'static str,
    pub role: Role,
    pub fd: i64,
    pub start: u64,
    pub end: u64,
    pub cpu: u64,
    pub run_queue: u64,
    /// The result of the function.
    pub result: i64,
    /// The errno of a call that failed; else 0.
    pub errno: i64,
}

/// The side of the measuring process: makes the table, and reads it while the other process fills it.
pub struct Reader {
    fd: OwnedFd,
    table: Table,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.table.unmap();
    }
}

impl Reader {
    /// # Errors
    /// The errors of memfd_create(2), ftruncate(2) and mmap(2).
    pub fn new() -> io::Result<Reader> {
        let name = c"proact-probe".as_ptr();
        // glibc has a function for it since 2.27.
        // SAFETY: the string ends in a NUL.
        let fd = check(unsafe { libc::syscall(libc::SYS_memfd_create, name, libc::MFD_CLOEXEC) as i32 })?;
        // SAFETY: a new fd that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: ftruncate takes no pointers.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), size_of::<Layout>() as libc::off_t) })?;
        let magic = MAGIC.to_ne_bytes();
        // SAFETY: the magic goes to the file's start, where the header begins.
        let written = unsafe { libc::pwrite(fd.as_raw_fd(), magic.as_ptr().cast(), magic.len(), 0) };
        if written != size_of::<u64>() as isize {
            return Err(io::Error::last_os_error());
        }
        let table = Table::map(&fd)?;
        Ok(Reader { fd, table })
    }

    /// The fd for [`super::install`] in the process that is to be accounted for.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The totals now. They include the unfinished call of each thread up to now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let header = self.table.header();
        let claimed = header.slots.load(Relaxed) as usize;
        let mut at = monotonic_ns();
        let slots = self.table.layout().slots[..claimed.min(SLOTS)].iter().enumerate();
        let threads = slots.map(|(index, slot)| {
            let read = slot.read(index);
            at = read.0;
            read.1
        });
        let threads = threads.collect();
        Snapshot {
            at,
            threads,
            lost: claimed.saturating_sub(SLOTS) as u64,
            overhead: header.overhead.load(Relaxed),
        }
    }

    /// Begins a trace, without the events of the previous trace, or ends it. Returns how many calls the trace until
    /// now had no room for.
    pub fn trace(&self, on: bool) -> usize {
        let header = self.table.header();
        let wanted = header.events.load(Relaxed) as usize;
        let used = wanted.min(EVENTS);
        if on {
            for event in &self.table.layout().events[..used] {
                event.result.store(0, Relaxed);
            }
            header.events.store(0, Relaxed);
        }
        header.tracing.store(u64::from(on), Relaxed);
        wanted - used
    }

    /// The calls of the trace that have returned, in the order in which they returned.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let used = (self.table.header().events.load(Relaxed) as usize).min(EVENTS);
        let events = self.table.layout().events[..used].iter();
        events.filter_map(EventEntry::read).collect()
    }
}

impl Slot {
    /// The thread's totals, and the time at which they held: a moment at which the thread was not changing them.
    fn read(&self, slot: usize) -> (u64, ThreadTimes) {
        let thread = self.thread.load(Acquire);
        // Read this file first: if a process reads its own accounts, reading the file changes them.
        let kernel = schedstat(thread);
        loop {
            let version = self.version.load(Acquire);
            let at = monotonic_ns();
            let mut totals = [CallTimes::default(); KINDS];
            for (copy, row) in totals.iter_mut().zip(&self.rows) {
                *copy = row.read();
            }
            // Add the unfinished call, up to the kernel's last update (about one tick ago). A thread that has ended
            // has none.
            if let Some((cpu, run_queue)) = kernel {
                let under_way = &mut totals[(self.state.load(Relaxed) as usize).min(KINDS - 1)];
                let wall = at.saturating_sub(self.since.load(Relaxed));
                let cpu = cpu.saturating_sub(self.cpu_seen.load(Relaxed)).min(wall);
                let run_queue = run_queue
                    .saturating_sub(self.run_queue_seen.load(Relaxed))
                    .min(wall - cpu);
                under_way.wall += wall;
                under_way.cpu += cpu;
                under_way.run_queue += run_queue;
            }
            let ring_ops = self.ring_ops.load(Relaxed);
            std::sync::atomic::fence(Acquire);
            if version.is_multiple_of(2) && self.version.load(Relaxed) == version {
                let times = ThreadTimes {
                    slot,
                    thread,
                    ring_ops,
                    totals,
                };
                return (at, times);
            }
            std::hint::spin_loop();
        }
    }

    /// Makes a change that readers see as a whole or not at all.
    pub fn change(&self, body: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        std::sync::atomic::fence(Release);
        body();
        self.version.store(version + 2, Release);
    }
}

/// How long a thread was on a CPU and in the run queue so far, in nanoseconds. `None` once it has ended.
fn schedstat(thread: u64) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Row {
    fn read(&self) -> CallTimes {
        CallTimes {
            count: self.count.load(Relaxed),
            wall: self.wall.load(Relaxed),
            cpu: self.cpu.load(Relaxed),
            run_queue: self.run_queue.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            empty: self.empty.load(Relaxed),
        }
    }
}

/// Adds to a total that only the calling thread writes.
pub(super) fn add(total: &AtomicU64, more: u64) {
    total.store(total.load(Relaxed).wrapping_add(more), Relaxed);
}

impl EventEntry {
    fn read(&self) -> Option<Event> {
        let result = self.result.load(Acquire);
        let call = Call::ALL.get(self.call.load(Relaxed) as usize)?;
        (result != 0).then(|| Event {
            thread: self.thread.load(Relaxed),
            call: call.name(),
            role: call.role(),
            fd: self.fd.load(Relaxed),
            start: self.start.load(Relaxed),
            end: self.end.load(Relaxed),
            cpu: self.cpu.load(Relaxed),
            run_queue: self.run_queue.load(Relaxed),
            result: if result > 0 { result - 1 } else { result },
            errno: self.errno.load(Relaxed),
        })
    }
}
