//! Counts by `perf_event_open(2)`: one counter per thread, which the threads that it creates inherit.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::sockets::check;

/// Where tracefs is mounted; the second path is from before Linux 4.1.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// How often to try again when the process creates threads during the attach.
const ATTEMPTS: usize = 8;

/// `struct perf_event_attr` up to `branch_sample_type` (PERF_ATTR_SIZE_VER2 is 80 bytes). libc does not define it.
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
        // A thread that appears during the attach may inherit a counter or have none, depending on its creator. So
        // the set of threads has to be the same before and after.
        let mut before = super::threads_of_tree(pid)?;
        let mut counters = Vec::new();
        for _ in 0..ATTEMPTS {
            counters.clear();
            for &thread in &before {
                match open(tracepoint, thread) {
                    Ok(counter) => counters.push(counter),
                    // The thread has ended. The comparison below notices.
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
            "perf: the process creates threads faster than the counter can attach to them",
        ))
    }

    pub(super) fn read(&self) -> u64 {
        self.0.iter().filter_map(|counter| read(counter).ok()).sum()
    }
}

/// The number of `raw_syscalls:sys_enter`, which differs between kernels.
fn tracepoint() -> io::Result<u64> {
    for root in TRACEFS {
        if let Ok(text) = fs::read_to_string(format!("{root}/events/raw_syscalls/sys_enter/id")) {
            return text.trim().parse().map_err(io::Error::other);
        }
    }
    if let Ok(text) = unmounted() {
        return text.trim().parse().map_err(io::Error::other);
    }
    let hint =
        "perf: no readable raw_syscalls:sys_enter (as root: mount -t tracefs nodev /sys/kernel/tracing)";
    Err(io::Error::new(io::ErrorKind::Unsupported, hint))
}

/// Reads the number out of a tracefs of our own, which is mounted nowhere. This needs `CAP_SYS_ADMIN`.
fn unmounted() -> io::Result<String> {
    const FSCONFIG_CMD_CREATE: libc::c_ulong = 6;
    const CLOEXEC: libc::c_ulong = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: the string ends in a NUL.
    let opened = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), CLOEXEC) })?;
    let context = opened.as_raw_fd();
    // SAFETY: this command takes no pointers.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, none, none, 0) };
    check(libc::c_int::try_from(created).unwrap_or(-1))?;
    // SAFETY: fsmount takes no pointers.
    let mounted = owned(unsafe { libc::syscall(libc::SYS_fsmount, context, CLOEXEC, 0) })?;
    let file = c"events/raw_syscalls/sys_enter/id";
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the string ends in a NUL.
    let file = owned(unsafe { libc::openat(mounted.as_raw_fd(), file.as_ptr(), flags) }.into())?;
    io::read_to_string(fs::File::from(file))
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel has just created `fd`, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
    // SAFETY: `attributes` is a perf_event_attr of the size that it states, and the kernel only reads it.
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
    owned(fd)
}

/// Reads one counter, which includes the calls of its thread's descendants.
fn read(counter: &OwnedFd) -> io::Result<u64> {
    let mut value = 0_u64;
    // SAFETY: `value` has 8 writable bytes, and a counter without a read format returns no more.
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
        Some(libc::ENOSYS) => "this kernel has no perf_event_open, or a seccomp filter forbids it",
        _ => "perf_event_open",
    };
    io::Error::new(error.kind(), format!("perf: {why}: {error}"))
}
