//! The ring: the submission and completion queues, `io_uring_enter`, and the thread that the ring belongs to.
//!
//! The ring is created disabled. The thread that first waits on it enables it, because SINGLE_ISSUER binds the ring
//! to the thread that enables it.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::ThreadId;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};

use super::label::IGNORED;
use super::setup::{
    self, REGISTER_RING_FDS, SETUPS, Setup, UNREGISTER_RING_FDS, is_denied, note_closed, patiently,
};
use crate::driver::Config;
use crate::features::Features;
use crate::fork::Generation;
use crate::lent;

/// The longest wait: longer than any program waits, and too short to overflow the kernel's arithmetic.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

pub(super) struct Ring {
    /// `None` once the ring is closed ([`Ring::close`]). Then it takes no entry and has no completion.
    io: Option<IoUring>,
    /// The ring's index among the registered rings of its thread, or its fd if it is not registered.
    enter_fd: i32,
    enter_flags: EnterFlags,
    /// The thread that runs the ring, once it is enabled, and the kernel's number of that thread.
    owner: Option<ThreadId>,
    owner_tid: libc::pid_t,
    setup: Setup,
    ext_arg: bool,
    no_iowait: bool,
    /// Whether the engine registers the ring's fd (io_uring_register(2), `IORING_REGISTER_RING_FDS`).
    registers_fd: bool,
    /// The timespec of the timeout entry, at a stable address. For kernels without EXT_ARG.
    timeout: Box<Timespec>,
    denied: Vec<u8>,
    /// How often [`Ring::fill`] was called.
    fills: u32,
    /// The reading end of a pipe, which hangs up once the kernel has freed the ring: closing the ring only begins
    /// that.
    tether: Option<OwnedFd>,
    generation: Generation,
}

impl Ring {
    /// # Errors
    /// The errors of `io_uring_setup(2)`.
    pub(super) fn new(config: &Config, features: &Features) -> io::Result<(Ring, Vec<String>)> {
        let mut fallbacks = Vec::new();
        let mut last = None;
        for setup in SETUPS {
            let name = setup.name;
            if is_denied(config, name) {
                fallbacks.push(format!("{name}: denied by PROACT_URING_DENY"));
                continue;
            }
            match patiently(|| setup::build(config, setup)) {
                Ok(io) => {
                    let params = io.params();
                    let ext_arg = params.is_feature_ext_arg() && !is_denied(config, "ext_arg");
                    if !ext_arg {
                        fallbacks.push("ext_arg: missing; each wait is limited by a timeout entry".into());
                    }
                    let ring = Ring {
                        enter_fd: io.as_raw_fd(),
                        enter_flags: EnterFlags::empty(),
                        owner: None,
                        owner_tid: 0,
                        setup,
                        ext_arg,
                        no_iowait: params.is_feature_no_iowait() && !is_denied(config, "no_iowait"),
                        // A registered ring lives until its thread unregisters it or ends. With DEFER_TASKRUN a ring
                        // that outlives the engine does nothing any more; without it, ops on the ring would go on.
                        registers_fd: setup.defer && !is_denied(config, "ring_fds"),
                        timeout: Box::new(Timespec::new()),
                        denied: features.denied_opcodes(),
                        fills: 0,
                        tether: None,
                        generation: Generation::current(),
                        io: Some(io),
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

    fn io(&self) -> io::Result<&IoUring> {
        self.io
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENXIO))
    }

    /// Whether the calling thread runs the ring.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == Some(std::thread::current().id())
    }

    /// Whether another thread than the calling one has run the ring. Then the calling thread can't use it.
    pub(super) fn is_foreign(&self) -> bool {
        self.owner
            .is_some_and(|owner| owner != std::thread::current().id())
    }

    /// Whether the ring's thread lives and has the ring registered.
    pub(super) fn is_registered_by_live_thread(&self) -> bool {
        // SAFETY: signal 0 only asks whether the thread exists (tgkill(2)).
        self.is_registered()
            && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.owner_tid, 0) } == 0
    }

    /// Makes the ring usable by the calling thread.
    ///
    /// # Errors
    /// `EEXIST` if another thread runs the ring; the errors of enabling it.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.owner.is_some() {
            if self.is_foreign() {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
        } else {
            self.tether = self.tie();
        }
        if self.owner.is_none() {
            setup::allow_workers(self.io()?);
        }
        if self.owner.is_none() && self.setup.disabled {
            match setup::restrict(self.io()?, &self.denied) {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
            self.io()?.submitter().register_enable_rings()?;
        }
        if !self.is_ours() {
            self.owner = Some(std::thread::current().id());
            // SAFETY: the call has no arguments and always succeeds.
            self.owner_tid = unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t };
        }
        if self.registers_fd && !self.is_registered() {
            self.register_fd();
        }
        Ok(())
    }

    /// Gives the writing end of a pipe to the ring alone, as a registered file: the kernel drops registered files
    /// last.
    fn tie(&self) -> Option<OwnedFd> {
        let mut fds = [0; 2];
        // SAFETY: two ints to write into.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
            return None;
        }
        // SAFETY: fresh fds that nobody else owns.
        let (reader, writer) = unsafe { fds.map(|fd| OwnedFd::from_raw_fd(fd)).into() };
        self.io()
            .ok()?
            .submitter()
            .register_files(&[writer.as_raw_fd()])
            .ok()
            .map(|()| reader)
    }

    /// Whether ops that wait on the ring stop once its thread has left: with DEFER_TASKRUN the kernel lets ops go on
    /// only while that thread is inside `io_uring_enter`.
    pub(super) fn is_inert(&self) -> bool {
        self.setup.defer
    }

    /// Closes the ring and waits until the kernel has freed it, so that its ops no longer wait on their files. A ring that is closed stays so.
    pub(super) fn close(&mut self) {
        if self.is_closed() {
            return;
        }
        let tether = self.tether.take();
        self.drop_io();
        self.owner = None;
        let mut entry = libc::pollfd {
            fd: tether.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            events: 0,
            revents: 0,
        };
        let limit = if tether.is_some() { 5000 } else { 200 };
        // SAFETY: one entry, local. Without a tether the call is a sleep. A signal may end it early, which is
        // harmless.
        unsafe { libc::poll(&raw mut entry, 1, limit) };
    }

    fn is_registered(&self) -> bool {
        self.enter_flags.contains(EnterFlags::REGISTERED_RING)
    }

    /// Registers or unregisters the ring's fd with the calling thread.
    fn change_registration(&self, opcode: u8, index: u32) -> Option<i32> {
        #[repr(C)]
        struct Update {
            offset: u32,
            reserved: u32,
            data: u64,
        }
        let fd = self.io.as_ref()?.as_raw_fd();
        let mut update = Update {
            offset: index,
            reserved: 0,
            data: if opcode == REGISTER_RING_FDS { fd as u64 } else { 0 },
        };
        // SAFETY: one update, local, with the layout of struct io_uring_rsrc_update.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd,
                u32::from(opcode),
                &raw mut update,
                1,
            )
        };
        (result == 1).then_some(update.offset as i32)
    }

    /// Registers the ring's fd, which saves its look-up in each `io_uring_enter` (Linux 5.18) and changes nothing
    /// else.
    fn register_fd(&mut self) {
        match self.change_registration(REGISTER_RING_FDS, u32::MAX) {
            Some(index) => {
                self.enter_fd = index;
                self.enter_flags = EnterFlags::REGISTERED_RING;
            }
            // The kernel is older, or all sixteen places of this thread are taken: do not try again.
            None => self.registers_fd = false,
        }
    }

    /// Lets go of the ring if the calling thread runs it. Closing the fd frees the ring only after that.
    pub(super) fn unregister_fd(&mut self) {
        if self.is_registered() && !self.is_foreign() && self.generation.is_current() {
            self.change_registration(UNREGISTER_RING_FDS, self.enter_fd as u32);
            self.forget_registration();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.io.is_none()
    }

    fn forget_registration(&mut self) {
        self.enter_fd = self.io.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        self.enter_flags = EnterFlags::empty();
    }

    fn drop_io(&mut self) {
        if self.generation.is_current() {
            self.unregister_fd();
        }
        let Some(io) = self.io.take() else { return };
        if self.generation.is_current() {
            drop(io);
            note_closed();
        } else {
            // A forked child did not inherit the ring's memory, and other mappings may have taken the ranges: the
            // child may only close the fd.
            let io = ManuallyDrop::new(io);
            // SAFETY: the fd is the child's copy, and `io` is never used again.
            unsafe { libc::close(io.as_raw_fd()) };
        }
        self.forget_registration();
    }

    /// Registers the lent memory as the one buffer of the ring, number 0.
    ///
    /// # Errors
    /// The errors of `io_uring_register(2)` with IORING_REGISTER_BUFFERS.
    pub(super) fn register_lent(&self) -> io::Result<()> {
        let (base, len) = lent::region().ok_or(io::ErrorKind::NotFound)?;
        let buffer = libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        };
        // SAFETY: the memory is never unmapped.
        unsafe { self.io()?.submitter().register_buffers(&[buffer]) }
    }

    /// # Errors
    /// The errors of `io_uring_register(2)` with IORING_REGISTER_PBUF_RING.
    pub(super) fn register_buffers(&self, entries: *mut u8, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: the memory has `count` entries. The kernel pins their pages until the group is unregistered or the
        // ring has ended, even if the memory is unmapped before.
        unsafe {
            self.io()?
                .submitter()
                .register_buf_ring_with_flags(entries as u64, count, group, 0)
        }
    }

    /// Removes a group. The kernel answers `-ENOBUFS` to ops that receive into it afterwards.
    pub(super) fn unregister_buffers(&self, group: u16) -> io::Result<()> {
        self.io()?.submitter().unregister_buf_ring(group)
    }

    /// Moves entries into the queue until it is full.
    pub(super) fn fill(&mut self, entries: &mut VecDeque<Entry>) {
        self.fills = self.fills.wrapping_add(1);
        let Some(io) = &mut self.io else { return };
        let mut queue = io.submission();
        while let Some(entry) = entries.front() {
            // SAFETY: the memory that the entry points at is valid until its completion: the contract of
            // `Driver::submit`.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            entries.pop_front();
        }
    }

    pub(super) fn fills(&self) -> u32 {
        self.fills
    }

    /// How many entries of the queue the kernel has not taken.
    pub(super) fn unsubmitted(&self) -> usize {
        self.flag_state().0
    }

    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: no other view of the completion queue exists: only `&mut self` methods make one, and they drop it.
        self.io
            .as_ref()
            .is_some_and(|io| unsafe { !io.completion_shared().is_empty() })
    }

    fn flag_state(&self) -> (usize, bool, bool) {
        let Some(io) = &self.io else {
            return (0, false, false);
        };
        // SAFETY: no other view of the submission queue exists: only `&mut self` methods make one, and they drop it.
        let queue = unsafe { io.submission_shared() };
        (queue.len(), queue.taskrun(), queue.cq_overflow())
    }

    pub(super) fn overflowed(&self) -> bool {
        self.flag_state().2
    }

    /// Whether `io_uring_enter` would do anything beside waiting.
    pub(super) fn needs_enter(&self) -> bool {
        let (unsubmitted, taskrun, overflow) = self.flag_state();
        unsubmitted > 0 || taskrun || overflow || !self.setup.coop
    }

    /// Submits the entries of the queue and waits for one completion, at most `timeout` (zero: does not wait).
    ///
    /// # Errors
    /// The errors of `io_uring_enter(2)`; `ETIME` when the timeout has passed.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let sleeps = timeout != Some(Duration::ZERO);
        let limit = timeout
            .filter(|_| sleeps)
            .map(|timeout| Timespec::from(timeout.min(LONGEST)));
        if let (Some(limit), false) = (limit, self.ext_arg) {
            *self.timeout = limit;
            let entry = io_uring::opcode::Timeout::new(&raw const *self.timeout)
                .count(1)
                .build();
            let entry = entry.user_data(IGNORED);
            // SAFETY: `self` owns the timespec, which outlives the ring.
            let push = |io: &mut IoUring| unsafe { io.submission().push(&entry).is_ok() };
            // The queue has no room for the timeout entry, so the wait does not sleep. That is only slower.
            if !self.io.as_mut().is_some_and(push) {
                return self.enter(Some(Duration::ZERO));
            }
        }
        let (unsubmitted, ..) = self.flag_state();
        let mut flags = self.enter_flags | EnterFlags::GETEVENTS;
        if sleeps && self.no_iowait {
            // A sleeping loop is idle and does not wait for a disk. Without this flag the kernel counts it as waiting
            // for I/O, in statistics and in the choice of the CPU's frequency.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let mut args = SubmitArgs::new();
        let (arg, size): (*const libc::c_void, usize) = match &limit {
            Some(limit) if self.ext_arg => {
                flags |= EnterFlags::EXT_ARG;
                args = args.timespec(limit);
                ((&raw const args).cast(), size_of::<SubmitArgs<'_, '_>>())
            }
            _ => (std::ptr::null(), 0),
        };
        // SAFETY: the argument is null or a local that outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                unsubmitted as u32,
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

    /// Moves the completions out of the queue.
    pub(super) fn reap(&mut self, into: &mut Vec<(u64, i32, u32)>) {
        let Some(io) = &mut self.io else { return };
        into.extend(
            io.completion()
                .map(|entry| (entry.user_data(), entry.result(), entry.flags())),
        );
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.drop_io();
    }
}
