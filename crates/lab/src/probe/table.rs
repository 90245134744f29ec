//! The table in shared memory: a slot for each thread with a row for each kind of call, and the events of a trace.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use super::call::{Call, KINDS, Role};
use super::clock::monotonic_ns;
use crate::sockets::check;

/// Threads that are accounted for; later ones are counted as lost.
const SLOTS: usize = 12_000;
/// Calls that a trace holds; later ones are counted as lost.
const EVENTS: usize = 262_144;
const MAGIC: u64 = 0x7072_6f61_6374_0001;

#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    pub slots: AtomicU64,
    pub tracing: AtomicU64,
    pub events: AtomicU64,
    /// What a wrapper adds to a call, in nanoseconds.
    pub overhead: AtomicU64,
}

/// Totals of one kind of call of one thread; times in nanoseconds.
#[repr(C)]
pub(super) struct Row {
    pub count: AtomicU64,
    pub wall: AtomicU64,
    pub cpu: AtomicU64,
    pub run_queue: AtomicU64,
    pub bytes: AtomicU64,
    pub empty: AtomicU64,
}

/// Written by its thread only. `version` is odd while it is being changed.
#[repr(C)]
pub(super) struct Slot {
    pub version: AtomicU64,
    pub thread: AtomicU64,
    /// The kind of call that it is in (0: none), and since when: what is under way belongs to a snapshot too.
    pub state: AtomicU64,
    pub since: AtomicU64,
    pub cpu_seen: AtomicU64,
    pub run_queue_seen: AtomicU64,
    pub ring_ops: AtomicU64,
    pub rows: [Row; KINDS],
}

#[repr(C)]
pub(super) struct Record {
    pub thread: AtomicU64,
    pub call: AtomicU64,
    pub fd: AtomicI64,
    pub start: AtomicU64,
    pub end: AtomicU64,
    pub cpu: AtomicU64,
    pub run_queue: AtomicU64,
    pub errno: AtomicI64,
    /// Written last, with one added to it where it is 0 or more: 0 is an event that is not complete.
    pub result: AtomicI64,
}

#[repr(C)]
struct Layout {
    header: Header,
    slots: [Slot; SLOTS],
    events: [Record; EVENTS],
}

/// A mapping of the table. It stays mapped in the process that is accounted for.
pub(super) struct Table(*const Layout);

// SAFETY: everything in it is atomic.
unsafe impl Send for Table {}
// SAFETY: everything in it is atomic.
unsafe impl Sync for Table {}

impl Table {
    pub fn map(fd: &OwnedFd) -> io::Result<Table> {
        // SAFETY: zeros are a value of stat; fstat only writes to it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
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
        // SAFETY: mapped, as large as a Layout, and any bytes are values of its atomics.
        unsafe { &*self.0 }
    }

    pub fn header(&self) -> &Header {
        &self.layout().header
    }

    /// A slot for a new thread.
    pub fn claim(&self) -> Option<&Slot> {
        let index = self.header().slots.fetch_add(1, Relaxed) as usize;
        self.layout().slots.get(index)
    }

    /// Room for an event, if a trace is running and has any.
    pub fn event(&self) -> Option<&Record> {
        if self.header().tracing.load(Relaxed) == 0 {
            return None;
        }
        let index = self.header().events.fetch_add(1, Relaxed) as usize;
        self.layout().events.get(index)
    }

    fn unmap(&self) {
        // SAFETY: our mapping, and nobody uses it any more.
        unsafe { libc::munmap(self.0.cast_mut().cast(), size_of::<Layout>()) };
    }
}

/// Totals of one kind of call of one thread. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallTimes {
    pub count: u64,
    /// From entry to return.
    pub wall: u64,
    /// Of that, on a CPU.
    pub cpu: u64,
    /// Of that, runnable but not running.
    pub run_queue: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Returns with `EAGAIN`.
    pub empty: u64,
}

/// The totals at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the last of the threads was read, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// Every thread that has made a call, those that have ended included.
    pub threads: Vec<ThreadTimes>,
    /// Threads that had no slot left.
    pub lost: u64,
    pub overhead: u64,
}

/// The totals of one thread at one moment.
#[derive(Clone, Debug)]
pub struct ThreadTimes {
    /// Its slot: unlike its id it belongs to no other thread later.
    pub slot: usize,
    pub thread: u64,
    pub ring_ops: u64,
    totals: [CallTimes; KINDS],
}

impl ThreadTimes {
    /// Name, role and totals of each kind of call that it has made; the first is the time between calls.
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
    /// As the function returned it.
    pub result: i64,
    /// Of a call that failed; else 0.
    pub errno: i64,
}

/// The measuring process's side: makes the table, and reads it while the other process fills it.
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
    /// What memfd_create(2), ftruncate(2) and mmap(2) report.
    pub fn new() -> io::Result<Reader> {
        // SAFETY: a string with its NUL.
        let fd = check(unsafe { libc::memfd_create(c"proact-probe".as_ptr(), libc::MFD_CLOEXEC) })?;
        // SAFETY: a new fd, owned by nobody else.
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

    /// What the process that is to be accounted for hands to [`super::install`].
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// The totals now, with what is under way counted as far as it has come.
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

    /// Begins a trace, without the events of the last, or ends it; how many calls the one until now had no room for.
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

    /// The calls of the trace that have returned, in the order in which they did.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let used = (self.table.header().events.load(Relaxed) as usize).min(EVENTS);
        let events = self.table.layout().events[..used].iter();
        events.filter_map(Record::read).collect()
    }
}

impl Slot {
    /// Its totals and of when they are: a moment at which nothing of it was being changed.
    fn read(&self, slot: usize) -> (u64, ThreadTimes) {
        let thread = self.thread.load(Acquire);
        // Before the accounts are looked at: where a process reads its own, reading this file changes them.
        let kernel = schedstat(thread);
        loop {
            let version = self.version.load(Acquire);
            let at = monotonic_ns();
            let mut totals = [CallTimes::default(); KINDS];
            for (copy, row) in totals.iter_mut().zip(&self.rows) {
                *copy = row.read();
            }
            // What is under way, as far as the kernel's accounts have come (to about a tick). A thread that has ended
            // has nothing under way.
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

    /// Changes it as one for readers.
    pub fn change(&self, body: impl FnOnce()) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        std::sync::atomic::fence(Release);
        body();
        self.version.store(version + 2, Release);
    }
}

/// A thread's time on a CPU and in the run queue so far, in nanoseconds; None once it has ended.
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

/// Adds to what only one thread writes.
pub(super) fn add(total: &AtomicU64, more: u64) {
    total.store(total.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Record {
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
