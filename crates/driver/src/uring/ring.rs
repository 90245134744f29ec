//! The ring itself: set-up with fall-backs, the submission and completion queues, and `io_uring_enter`.
//!
//! It is created disabled and enabled by the thread that first waits on it (SINGLE_ISSUER binds it to that thread).

use std::io;
use std::os::fd::AsRawFd;
use std::thread::ThreadId;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, register::Restriction};

use super::probe::{Features, OPCODES};
use crate::driver::Config;

const REGISTER_RING_FDS: u32 = 20;

pub(super) struct Ring {
    io: IoUring,
    /// The ring's index among this thread's registered rings, once enabled; else its fd.
    enter_fd: i32,
    enter_flags: EnterFlags,
    owner: Option<ThreadId>,
    ext_arg: bool,
    /// With this, "is there work?" is a bit in the submission queue's flags; without, every wait must enter.
    taskrun_flag: bool,
    /// For kernels without EXT_ARG: the timespec of the timeout entry, at a stable address.
    timeout: Box<Timespec>,
    denied: Vec<u8>,
    restrict: bool,
}

/// A ring's set-up flags in falling order of preference, each with what the kernel must know.
const SETUPS: [(&str, bool, bool, bool); 4] = [
    // name, single_issuer + defer_taskrun, single_issuer, coop_taskrun + taskrun_flag
    ("defer_taskrun", true, true, true),
    ("single_issuer", false, true, true),
    ("coop_taskrun", false, false, true),
    ("plain", false, false, false),
];

impl Ring {
    /// # Errors
    /// As `io_uring_setup(2)`.
    pub(super) fn new(config: &Config, features: &Features) -> io::Result<(Ring, Vec<String>)> {
        let mut fallbacks = Vec::new();
        let mut last = None;
        for (name, defer, single, coop) in SETUPS {
            if config.deny.iter().any(|word| word == name) {
                fallbacks.push(format!("{name}: denied by PROACT_URING_DENY"));
                continue;
            }
            match Self::build(config, defer, single, coop) {
                Ok(io) => {
                    let enter_fd = io.as_raw_fd();
                    let ext_arg =
                        io.params().is_feature_ext_arg() && !config.deny.iter().any(|word| word == "ext_arg");
                    if !ext_arg {
                        fallbacks.push("ext_arg: not there; waits are timed by a timeout entry".into());
                    }
                    let ring = Ring {
                        io,
                        enter_fd,
                        enter_flags: EnterFlags::empty(),
                        owner: None,
                        ext_arg,
                        taskrun_flag: coop,
                        timeout: Box::new(Timespec::new()),
                        denied: features.denied_opcodes(),
                        restrict: true,
                    };
                    return Ok((ring, fallbacks));
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    fallbacks.push(format!("{name}: {error}; an older kernel"));
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL)))
    }

    fn build(config: &Config, defer: bool, single: bool, coop: bool) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        let completions = if config.cq_entries == 0 {
            config.entries * 16
        } else {
            config.cq_entries
        };
        builder
            .setup_cqsize(completions)
            .setup_clamp()
            .setup_r_disabled()
            .dontfork();
        if coop {
            builder
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .setup_submit_all();
        }
        if single {
            builder.setup_single_issuer();
        }
        if defer {
            builder.setup_defer_taskrun();
        }
        builder.build(config.entries)
    }

    /// Only the opcodes that proact uses (less those denied) stay possible on this ring.
    pub(super) fn restrict(io: &IoUring, denied: &[u8]) -> io::Result<()> {
        let mut allowed: Vec<Restriction> = OPCODES
            .iter()
            .filter(|(_, code)| !denied.contains(code))
            .map(|(_, code)| Restriction::sqe_op(*code))
            .collect();
        allowed.push(Restriction::sqe_flags_allowed(0xFF));
        io.submitter().register_restrictions(&mut allowed)
    }

    /// Enables the ring for the calling thread, once.
    ///
    /// # Errors
    /// `EEXIST` if another thread runs it already.
    pub(super) fn start(&mut self) -> io::Result<()> {
        let current = std::thread::current().id();
        match self.owner {
            Some(owner) if owner == current => return Ok(()),
            Some(_) => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
            None => {}
        }
        if self.restrict {
            match Self::restrict(&self.io, &self.denied) {
                // Kernels before 5.10 know no restrictions; then nothing is restricted.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        self.register_ring_fd();
        self.io.submitter().register_enable_rings()?;
        self.owner = Some(current);
        Ok(())
    }

    pub(super) fn is_started(&self) -> bool {
        self.owner.is_some()
    }

    /// Saves the look-up of the ring's fd in each enter (Linux 5.18); without it nothing else changes.
    fn register_ring_fd(&mut self) {
        #[repr(C)]
        struct Update {
            offset: u32,
            reserved: u32,
            data: u64,
        }
        let fd = self.io.as_raw_fd();
        let mut update = Update {
            offset: u32::MAX,
            reserved: 0,
            data: fd as u64,
        };
        // SAFETY: one update, local, of the layout of struct io_uring_rsrc_update.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd,
                REGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
        if result == 1 {
            self.enter_fd = update.offset as i32;
            self.enter_flags = EnterFlags::REGISTERED_RING;
        }
    }

    /// # Errors
    /// As `io_uring_register(2)` with IORING_REGISTER_PBUF_RING.
    pub(super) fn register_buffers(&self, entries: *mut u8, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: the memory belongs to `Buffers`, which is dropped after the ring.
        unsafe {
            self.io
                .submitter()
                .register_buf_ring_with_flags(entries as u64, count, group, 0)
        }
    }

    /// False: the queue is full.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: what the entry points at is valid until its completion: the contract of `Driver::submit`.
        unsafe { self.io.submission().push(entry).is_ok() }
    }

    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: no other view of the completion queue exists: `&mut self` methods make theirs and drop them.
        unsafe { !self.io.completion_shared().is_empty() }
    }

    fn flag_state(&self) -> (usize, bool, bool) {
        // SAFETY: as above, for the submission queue.
        let queue = unsafe { self.io.submission_shared() };
        (queue.len(), queue.taskrun(), queue.cq_overflow())
    }

    pub(super) fn overflowed(&self) -> bool {
        self.flag_state().2
    }

    /// Whether an enter would do anything beside waiting.
    pub(super) fn needs_enter(&self) -> bool {
        let (queued, taskrun, overflow) = self.flag_state();
        queued > 0 || taskrun || overflow || !self.taskrun_flag
    }

    /// Submits what is queued and waits for one completion, `timeout` at most (zero: does not wait).
    ///
    /// # Errors
    /// As `io_uring_enter(2)`; `ETIME` when the time is over.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let sleeps = timeout != Some(Duration::ZERO);
        let limit = timeout.filter(|_| sleeps).map(Timespec::from);
        if let (Some(limit), false) = (limit, self.ext_arg) {
            *self.timeout = limit;
            let entry = io_uring::opcode::Timeout::new(&raw const *self.timeout)
                .count(1)
                .build();
            let entry = entry.user_data(super::tag(super::INTERNAL, super::IGNORED));
            // With no room for it the wait does not sleep, which is only slower.
            if !self.push(&entry) {
                return self.enter(Some(Duration::ZERO));
            }
        }
        let (queued, ..) = self.flag_state();
        let mut flags = self.enter_flags | EnterFlags::GETEVENTS;
        let mut args = SubmitArgs::new();
        let (arg, size): (*const libc::c_void, usize) = match &limit {
            Some(limit) if self.ext_arg => {
                flags |= EnterFlags::EXT_ARG;
                args = args.timespec(limit);
                ((&raw const args).cast(), size_of::<SubmitArgs<'_, '_>>())
            }
            _ => (std::ptr::null(), 0),
        };
        // SAFETY: the argument, where there is one, is local and outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                queued as u32,
                u32::from(sleeps),
                flags.bits(),
                arg,
                size,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Moves what has completed out of the queue.
    pub(super) fn reap(&mut self, into: &mut Vec<(u64, i32, u32)>) {
        into.extend(
            self.io
                .completion()
                .map(|entry| (entry.user_data(), entry.result(), entry.flags())),
        );
    }
}
