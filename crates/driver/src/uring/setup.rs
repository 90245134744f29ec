//! Makes a ring: its set-up flags with fallbacks for older kernels, the opcodes that it may use, and how to wait for
//! the memory of a closed ring, which the kernel frees late.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use io_uring::register::{Probe, Restriction};
use io_uring::{IoUring, opcode};

use crate::clock::{Clock, Monotonic};
use crate::cores::cores;
use crate::driver::Config;
use crate::locked;
use crate::ops::{OpKind, Opcode};

pub(super) const REGISTER_RING_FDS: u8 = 20;
pub(super) const UNREGISTER_RING_FDS: u8 = 21;
/// The registrations that stay allowed once the ring runs: the lent memory (0), its fd, and larger buffer rings (22 and 23). Larger queues
/// (IORING_REGISTER_RESIZE_RINGS) are not allowed: a packet that arrives during the resize can crash a kernel, at
/// least from 6.13 to 6.18.
const REGISTER_OPS: [u8; 5] = [0, REGISTER_RING_FDS, UNREGISTER_RING_FDS, 22, 23];

/// The opcode that cancels other ops. Without it no op can be ended.
pub(super) const CANCEL: Opcode = ("async_cancel", opcode::AsyncCancel::CODE);
const TIMEOUT: Opcode = ("timeout", opcode::Timeout::CODE);
/// How a read goes into memory that the ring has registered.
pub(super) const READ_LENT: Opcode = ("read_fixed", opcode::ReadFixed::CODE);

/// Every opcode that proact puts on a ring, sorted by name.
pub(super) fn opcodes() -> Vec<Opcode> {
    let mut opcodes = vec![CANCEL, TIMEOUT, READ_LENT];
    opcodes.extend(OpKind::ALL.iter().map(|kind| kind.facts().opcode));
    opcodes.sort_unstable();
    opcodes.dedup();
    opcodes
}

/// A ring's set-up flags.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    /// SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1).
    pub(super) defer: bool,
    /// SINGLE_ISSUER (6.0).
    single: bool,
    /// COOP_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL (5.19). With these flags a bit in memory tells whether the kernel has
    /// work; without them every wait must enter the kernel.
    pub(super) coop: bool,
    /// R_DISABLED, which restrictions need (5.10).
    pub(super) disabled: bool,
}

/// The best set-up first. The last one is for Linux 5.6.
pub(super) const SETUPS: [Setup; 5] = [
    setup("defer_taskrun", [true, true, true, true]),
    setup("single_issuer", [false, true, true, true]),
    setup("coop_taskrun", [false, false, true, true]),
    setup("plain", [false, false, false, true]),
    setup("basic", [false, false, false, false]),
];

const fn setup(name: &'static str, [defer, single, coop, disabled]: [bool; 4]) -> Setup {
    Setup {
        name,
        defer,
        single,
        coop,
        disabled,
    }
}

/// When this process last closed a ring, in milliseconds of the monotonic clock; 0: never.
static CLOSED: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    Monotonic.now() / 1_000_000
}

/// Notes that a ring was closed, whose memory the kernel will free soon.
pub(super) fn note_closed() {
    CLOSED.store(now(), Ordering::Relaxed);
}

/// Makes a ring, or a part of it. The kernel frees the memory of a closed ring some time after the close. So if there is too little
/// memory and a ring was closed just now, this function waits and tries again.
pub(super) fn patiently<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const LATELY: u64 = 500;
    let mut pause = 1;
    loop {
        match make() {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM)
                    && now() - CLOSED.load(Ordering::Relaxed) < LATELY =>
            {
                std::thread::sleep(Duration::from_millis(pause));
                pause = (pause * 2).min(LATELY / 10);
            }
            made => return made,
        }
    }
}

pub(super) fn is_denied(config: &Config, what: &str) -> bool {
    config.deny.iter().any(|word| word == what)
}

/// # Errors
/// The errors of `io_uring_setup(2)`.
pub(super) fn build(config: &Config, setup: Setup) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    let entries = config.entries.max(1);
    let completions = config.completions(locked::limit());
    builder.setup_cqsize(completions).setup_clamp().dontfork();
    if setup.disabled {
        builder.setup_r_disabled();
    }
    if setup.coop {
        builder
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all();
    }
    if setup.single {
        builder.setup_single_issuer();
    }
    if setup.defer {
        builder.setup_defer_taskrun();
    }
    builder.build(entries)
}

/// The least number of worker threads of the kernel that may wait for files at the same time.
const WORKERS: u32 = 128;

/// Raises the number of worker threads, which is 4 for each core at first (io_uring_register_iowq_max_workers(3)): an
/// open that waits for a peer or for a dead mount holds a worker, and fsyncs that go on at the same time join into one
/// commit of the journal. The kernel starts a worker only while the others wait. Kernels before 5.15 keep their number.
pub(super) fn allow_workers(io: &IoUring) {
    let bounded = WORKERS.max(4 * cores());
    let _refused = io.submitter().register_iowq_max_workers(&mut [bounded, 0]);
}

/// Restricts the ring to the opcodes that proact uses, without the denied ones. A kernel refuses a list with a number
/// that it does not know, so lists follow with what it knows, and with fewer registrations.
pub(super) fn restrict(io: &IoUring, denied: &[u8]) -> io::Result<()> {
    let codes = opcodes().into_iter().map(|(_, code)| code);
    let codes: Vec<u8> = codes.filter(|code| !denied.contains(code)).collect();
    let result = restrict_to(io, &codes);
    if !matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EINVAL)) {
        return result;
    }
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe)?;
    let known: Vec<u8> = codes
        .into_iter()
        .filter(|code| probe.is_supported(*code))
        .collect();
    restrict_to(io, &known)
}

fn restrict_to(io: &IoUring, codes: &[u8]) -> io::Result<()> {
    let mut result = Ok(());
    for known in [5, 3] {
        let mut allowed: Vec<Restriction> = codes.iter().map(|code| Restriction::sqe_op(*code)).collect();
        allowed.push(Restriction::sqe_flags_allowed(0xFF));
        allowed.extend(
            REGISTER_OPS[..known]
                .iter()
                .map(|op| Restriction::register_op(*op)),
        );
        result = io.submitter().register_restrictions(&mut allowed);
        let unknown = matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EINVAL));
        if !unknown {
            break;
        }
    }
    result
}
