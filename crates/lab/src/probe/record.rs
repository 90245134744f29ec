//! Accounts for one call: reads the clocks around it, and adds to the rows of the calling thread. The time that this takes is
//! in a row of its own, and in no other:
//!
//! ```text
//!  between      │ probe            │ the call      │ probe            │ between
//!             entered           start           end                done          monotonic clock
//!                 └ CPU clock                      └ CPU clock
//! ```

use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::Release};

use super::call::{Call, Role, original};
use super::clock::{monotonic_ns, thread_cpu_ns};
use super::table::{Slot, Table, add};

/// A thread that was off the CPU for less than this counts as on the CPU all the time: reading the two clocks one
/// after the other makes that much difference. In nanoseconds.
const ON_CPU: u64 = 2_000;
/// The probe takes no longer around a call, in nanoseconds, unless its thread is pre-empted.
const LONGEST: u64 = 5_000;
/// The lowest number for schedstat files, which stay open: a high number does not get in the way of the fds that the
/// process itself opens and selects.
const HIGH_FD: c_int = 4_096;

static TABLE: OnceLock<Table> = OnceLock::new();
/// False in a forked child, which must not change its parent's accounts.
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// Half of what a reading of the CPU clock takes, in nanoseconds: so much before its end it is as if it were read.
static HALF_READING: AtomicU64 = AtomicU64::new(0);

struct Local {
    slot: Cell<Option<&'static Slot>>,
    /// True inside a wrapper. A signal handler's calls are not accounted for: their time belongs to the call that the
    /// signal interrupts.
    inside: Cell<bool>,
    /// The table had no slot left for this thread.
    lost: Cell<bool>,
    schedstat: Cell<c_int>,
}

thread_local! {
    // Without a destructor, because calls may come at any time of a thread's life.
    static LOCAL: Local = const {
        Local { slot: Cell::new(None), inside: Cell::new(false), lost: Cell::new(false), schedstat: Cell::new(-1) }
    };
}

/// The result of a wrapped function.
pub(super) trait Outcome: Copy {
    fn value(self) -> i64;
}

impl Outcome for isize {
    fn value(self) -> i64 {
        self as i64
    }
}

impl Outcome for c_int {
    fn value(self) -> i64 {
        i64::from(self)
    }
}

extern "C" fn forked() {
    ACTIVE.store(false, Relaxed);
}

pub(super) fn begin(table: Table) -> io::Result<()> {
    TABLE
        .set(table)
        .map_err(|_| io::Error::from_raw_os_error(libc::EEXIST))?;
    // SAFETY: the handler only stores to a static.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    ACTIVE.store(true, Release);
    Ok(())
}

/// Runs one call, and reads the clocks before and after it. Keeps the errno of the call.
pub(super) fn record<R: Outcome>(call: Call, fd: c_int, run: impl FnOnce() -> R) -> R {
    LOCAL.with(|local| match slot(local) {
        Some((table, slot)) if !local.inside.replace(true) => {
            let result = account(local, table, slot, call, fd, run);
            local.inside.set(false);
            result
        }
        _ => run(),
    })
}

fn slot(local: &Local) -> Option<(&'static Table, &'static Slot)> {
    if !ACTIVE.load(Relaxed) || local.lost.get() {
        return None;
    }
    let table = TABLE.get()?;
    let slot = local.slot.get().or_else(|| {
        let slot = table.claim();
        local.lost.set(slot.is_none());
        if let Some(slot) = slot {
            slot.change(|| {
                // SAFETY: gettid has no arguments.
                slot.thread
                    .store(unsafe { libc::syscall(libc::SYS_gettid) } as u64, Relaxed);
                slot.cpu_seen.store(thread_cpu_ns(), Relaxed);
                slot.run_queue_seen.store(run_queue_ns(local), Relaxed);
                slot.since.store(monotonic_ns(), Relaxed);
            });
            local.slot.set(Some(slot));
        }
        slot
    })?;
    Some((table, slot))
}

fn account<R: Outcome>(
    local: &Local,
    table: &Table,
    slot: &Slot,
    call: Call,
    fd: c_int,
    run: impl FnOnce() -> R,
) -> R {
    let half = HALF_READING.load(Relaxed);
    let entered = monotonic_ns();
    let cpu_before = thread_cpu_ns().saturating_sub(half);
    let mut start = 0;
    slot.change(|| {
        phase(local, slot, Call::Between, entered, cpu_before);
        slot.state.store(call as u64, Relaxed);
        start = probed(slot, entered);
    });
    let result = run();
    // SAFETY: errno's address is valid in any thread.
    let errno = unsafe { *libc::__errno_location() };
    let end = monotonic_ns();
    let cpu_after = thread_cpu_ns().saturating_sub(half);
    let value = result.value();
    let mut spent = (0, 0);
    slot.change(|| {
        spent = phase(local, slot, call, end, cpu_after);
        let row = &slot.rows[call as usize];
        match call.role() {
            Role::Ring if value > 0 => add(&slot.ring_ops, value as u64),
            Role::Moves if value > 0 => add(&row.bytes, value as u64),
            _ => {}
        }
        if value == -1 && errno == libc::EAGAIN {
            add(&row.empty, 1);
        }
        slot.state.store(Call::Between as u64, Relaxed);
        probed(slot, end);
    });
    if let Some(event) = table.event() {
        event.thread.store(slot.thread.load(Relaxed), Relaxed);
        event.call.store(call as u64, Relaxed);
        event.fd.store(i64::from(fd), Relaxed);
        event.start.store(start, Relaxed);
        event.end.store(end, Relaxed);
        event.cpu.store(spent.0, Relaxed);
        event.run_queue.store(spent.1, Relaxed);
        let failed = if value < 0 { errno } else { 0 };
        event.errno.store(i64::from(failed), Relaxed);
        event
            .result
            .store(if value >= 0 { value + 1 } else { value }, Release);
    }
    // SAFETY: errno's address is valid in any thread.
    unsafe { *libc::__errno_location() = errno };
    result
}

/// Charges the probe with the time since `began`, at which the phase before it has ended. The probe does not sleep, so this
/// was CPU time. Of a thread that was pre-empted meanwhile, the rest belongs to the phase that begins. Returns the time.
fn probed(slot: &Slot, began: u64) -> u64 {
    let now = monotonic_ns();
    let took = now.saturating_sub(began).min(LONGEST);
    slot.since.store(began + took, Relaxed);
    add(&slot.cpu_seen, took);
    let row = &slot.rows[Call::Probe as usize];
    add(&row.count, 1);
    add(&row.wall, took);
    add(&row.cpu, took);
    now
}

/// Ends the phase that began when the previous phase ended. Returns its CPU time and its time in the run queue.
fn phase(local: &Local, slot: &Slot, call: Call, now: u64, cpu: u64) -> (u64, u64) {
    let wall = now.saturating_sub(slot.since.swap(now, Relaxed));
    let cpu = cpu.saturating_sub(slot.cpu_seen.swap(cpu, Relaxed)).min(wall);
    let off = wall - cpu;
    let run_queue = if off > ON_CPU {
        let seen = run_queue_ns(local);
        seen.saturating_sub(slot.run_queue_seen.swap(seen, Relaxed))
            .min(off)
    } else {
        0
    };
    let row = &slot.rows[call as usize];
    add(&row.count, 1);
    add(&row.wall, wall);
    add(&row.cpu, cpu);
    add(&row.run_queue, run_queue);
    (cpu, run_queue)
}

/// How long this thread has been runnable without running: the second number of schedstat (proc_pid_schedstat(5)).
fn run_queue_ns(local: &Local) -> u64 {
    let mut fd = local.schedstat.get();
    if fd < 0 {
        // SAFETY: the string ends in a NUL.
        let opened = unsafe {
            libc::open(
                c"/proc/thread-self/schedstat".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            )
        };
        // SAFETY: the call takes no pointers, and a failure is handled below. Use a raw system call, because libc's
        // function is wrapped.
        fd = unsafe { libc::syscall(libc::SYS_fcntl, opened, libc::F_DUPFD_CLOEXEC, HIGH_FD) } as c_int;
        if fd < 0 {
            fd = opened; // the limit of open files is below HIGH_FD
        } else {
            close(opened);
        }
        local.schedstat.set(fd);
    }
    let mut text = [0_u8; 64];
    let read: unsafe extern "C" fn(c_int, *mut u8, usize, libc::off_t) -> isize =
        // SAFETY: the address is of libc's pread, which has this type.
        unsafe { std::mem::transmute(original(Call::Pread)) };
    // SAFETY: the call only writes to `text`, and no more than fits.
    let got = unsafe { read(fd, text.as_mut_ptr(), text.len(), 0) };
    let text = std::str::from_utf8(&text[..got.max(0) as usize]).unwrap_or_default();
    text.split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn close(fd: c_int) {
    // SAFETY: the caller owns the fd. Use a raw system call, because libc's function is wrapped.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Measures how much time a wrapper adds to a call: a receive on an empty socket, with and without the wrapper.
pub(super) fn measure_overhead() {
    const CALLS: u64 = 5_000;
    let mut pair = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call writes two fds to `pair`.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) } < 0 {
        return;
    }
    let reading = (0..100)
        .map(|_| {
            let start = monotonic_ns();
            thread_cpu_ns();
            monotonic_ns() - start
        })
        .min();
    HALF_READING.store(reading.unwrap_or_default() / 2, Relaxed);
    let receive: unsafe extern "C" fn(c_int, *mut u8, usize, c_int) -> isize =
        // SAFETY: the address is of libc's recv, which has this type.
        unsafe { std::mem::transmute(original(Call::Recv)) };
    let mut byte = 0;
    // SAFETY: the call only writes to `byte`.
    let mut plain = || unsafe { receive(pair[0], &mut byte, 1, 0) };
    let timed = |body: &mut dyn FnMut() -> isize| {
        let start = monotonic_ns();
        for _ in 0..CALLS {
            body();
        }
        monotonic_ns() - start
    };
    timed(&mut || record(Call::Recv, -1, &mut plain)); // warm
    let (mut least, mut wrapped) = (u64::MAX, u64::MAX);
    for _ in 0..3 {
        least = least.min(timed(&mut plain));
        wrapped = wrapped.min(timed(&mut || record(Call::Recv, -1, &mut plain)));
    }
    close(pair[0]);
    close(pair[1]);
    if let Some(table) = TABLE.get() {
        let overhead = wrapped.saturating_sub(least) / CALLS;
        table.header().overhead.store(overhead, Relaxed);
    }
}
