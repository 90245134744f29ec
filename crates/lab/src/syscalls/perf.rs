//! Counting by `perf_event_open(2)`: one counter a thread, inherited by what the thread creates.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::sockets::check;

/// Where tracefs is mounted, and where it was before Linux 4.1.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// How often a process that creates threads while we attach is looked at again.
const ATTEMPTS: usize = 8;

/// `struct perf_event_attr` up to and including `branch_sample_type` (PERF_ATTR_SIZE_VER2 is 80 bytes). libc
/// has no definition of it.
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    /// Bit 0 `disabled`, bit 1 `inherit`, and so on.
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
const INHERIT: u64 = 1 << 1;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

pub(super) struct Perf(Vec<OwnedFd>);

impl Perf {
    pub(super) fn attach(pid: u32) -> io::Result<Self> {
        let tracepoint = tracepoint()?;
        // A thread that appears meanwhile may be counted by inheritance, or not at all, according to who
        // created it. So the set of threads has to be the same before and after.
        let mut before = super::threads_of_tree(pid)?;
        let mut counters = Vec::new();
        for _ in 0..ATTEMPTS {
            counters.clear();
            for &thread in &before {
                match open(tracepoint, thread) {
                    Ok(counter) => counters.push(counter),
                    // It has ended; the comparison below sees it.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(explained(error)),
                }
            }
            let after = super::threads_of_tree(pid)?;
            if after == before {
                return Ok(Self(counters));
            }
            before = after;
        }
        Err(io::Error::other(
            "perf: the process creates threads faster than they can be attached to",
        ))
    }

    pub(super) fn read(&self) -> u64 {
        self.0.iter().filter_map(|counter| read(counter).ok()).sum()
    }
}

/// The number of `raw_syscalls:sys_enter`, which is another on every kernel.
fn tracepoint() -> io::Result<u64> {
    for root in TRACEFS {
        if let Ok(text) = fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id")) {
            return text.trim().parse().map_err(io::Error::other);
        }
    }
    let hint =
        "perf: no readable raw_syscalls:sys_enter (as root: mount -t tracefs nodev /sys/kernel/tracing)";
    Err(io::Error::new(io::ErrorKind::Unsupported, hint))
}

fn open(tracepoint: u64, thread: u32) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: tracepoint,
        sample_period: 0,
        sample_type: 0,
        read_format: 0,
        flags: INHERIT,
        wakeup_events: 0,
        bp_type: 0,
        config1: 0,
        config2: 0,
        branch_sample_type: 0,
    };
    let any_cpu: libc::c_int = -1;
    let no_group: libc::c_int = -1;
    let thread = libc::pid_t::try_from(thread).map_err(io::Error::other)?;
    // SAFETY: `attributes` is a perf_event_attr of the size that it states; the kernel only reads it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel has just created `fd` for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One counter, with what its thread's descendants have added.
fn read(counter: &OwnedFd) -> io::Result<u64> {
    let mut value = 0_u64;
    // SAFETY: `value` is writable and 8 bytes, which is all that a counter without a read format gives.
    let got = unsafe { libc::read(counter.as_raw_fd(), (&raw mut value).cast(), size_of::<u64>()) };
    if got == 8 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn explained(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "not permitted (CAP_PERFMON, or kernel.perf_event_paranoid = -1)",
        Some(libc::ENOSYS) => "this kernel, or a seccomp filter, has no perf_event_open",
        _ => "perf_event_open",
    };
    io::Error::new(error.kind(), format!("perf: {why}: {error}"))
}
