//! The ring itself: the submission and completion queues, `io_uring_enter`, and the thread that the ring belongs to.
//!
//! It is created disabled and enabled by the thread that first waits on it (SINGLE_ISSUER binds it to that thread).

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

/// The longest wait: far more than anybody waits, and far from where the kernel's arithmetic overflows.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

pub(super) struct Ring {
    io: ManuallyDrop<IoUring>,
    /// The ring's index among its thread's registered rings, or its fd.
    enter_fd: i32,
    enter_flags: EnterFlags,
    /// The thread that runs it, once enabled, and its number in the kernel.
    owner: Option<ThreadId>,
    owner_tid: libc::pid_t,
    setup: Setup,
    ext_arg: bool,
    no_iowait: bool,
    /// Whether the ring's fd gets registered.
    registers_fd: bool,
    /// For kernels without EXT_ARG: the timespec of the timeout entry, at a stable address.
    timeout: Box<Timespec>,
    denied: Vec<u8>,
    /// How often [`Ring::fill`] was called.
    fills: u32,
    /// Hangs up when the kernel is done with the ring: closing it only begins that.
    tether: Option<OwnedFd>,
    generation: Generation,
}

impl Ring {
    /// # Errors
    /// As `io_uring_setup(2)`.
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
                        fallbacks.push("ext_arg: not there; waits are timed by a timeout entry".into());
                    }
                    let ring = Ring {
                        enter_fd: io.as_raw_fd(),
                        enter_flags: EnterFlags::empty(),
                        owner: None,
                        owner_tid: 0,
                        setup,
                        ext_arg,
                        no_iowait: params.is_feature_no_iowait() && !is_denied(config, "no_iowait"),
                        // A registered ring lives until it is unregistered, which only its thread can do. With
                        // DEFER_TASKRUN a ring that outlives us does nothing any more; others would go on.
                        registers_fd: setup.defer && !is_denied(config, "ring_fds"),
                        timeout: Box::new(Timespec::new()),
                        denied: features.denied_opcodes(),
                        fills: 0,
                        tether: None,
                        generation: Generation::current(),
                        io: ManuallyDrop::new(io),
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

    /// Whether the calling thread runs it.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == Some(std::thread::current().id())
    }

    /// Whether another thread than the calling one has run it: then it is of no use to this one.
    pub(super) fn is_foreign(&self) -> bool {
        self.owner
            .is_some_and(|owner| owner != std::thread::current().id())
    }

    /// Whether its thread lives and keeps it registered.
    pub(super) fn is_held_by_its_thread(&self) -> bool {
        // SAFETY: signal 0 only asks whether the thread is there.
        self.is_registered()
            && unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.owner_tid, 0) } == 0
    }

    /// Makes the ring ready for the calling thread.
    ///
    /// # Errors
    /// `EEXIST` if another thread runs it; what enabling it says.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.owner.is_some() {
            if self.is_foreign() {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
        } else {
            self.tether = self.tie();
        }
        if self.owner.is_none() && self.setup.disabled {
            match setup::restrict(&self.io, &self.denied) {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
            self.io.submitter().register_enable_rings()?;
        }
        if !self.is_ours() {
            self.owner = Some(std::thread::current().id());
            // SAFETY: always succeeds.
            self.owner_tid = unsafe { libc::gettid() };
        }
        if self.registers_fd && !self.is_registered() {
            self.register_fd();
        }
        Ok(())
    }

    /// Leaves the writing end of a pipe with the ring alone, as a registered file: the kernel drops those last.
    fn tie(&self) -> Option<OwnedFd> {
        let mut fds = [0; 2];
        // SAFETY: two ints to write into.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
            return None;
        }
        // SAFETY: fresh fds that nobody else owns.
        let (reader, writer) = unsafe { fds.map(|fd| OwnedFd::from_raw_fd(fd)).into() };
        self.io
            .submitter()
            .register_files(&[writer.as_raw_fd()])
            .ok()
            .map(|()| reader)
    }

    /// Whether an op that waits on it does nothing more once its thread has left: with DEFER_TASKRUN the kernel goes on
    /// with ops only inside that thread's enter.
    pub(super) fn is_inert(&self) -> bool {
        self.setup.defer
    }

    /// Closes the ring and waits until the kernel is done with it, so that nothing waits on its ops' files any more.
    pub(super) fn retire(mut self) {
        let tether = self.tether.take();
        drop(self);
        let mut entry = libc::pollfd {
            fd: tether.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            events: 0,
            revents: 0,
        };
        let limit = if tether.is_some() { 5000 } else { 200 };
        // SAFETY: one entry, local. Without a tether it is a sleep; a signal only makes it shorter.
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
        let fd = self.io.as_raw_fd();
        let mut update = Update {
            offset: index,
            reserved: 0,
            data: if opcode == REGISTER_RING_FDS { fd as u64 } else { 0 },
        };
        // SAFETY: one update, local, of the layout of struct io_uring_rsrc_update.
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

    /// Saves the look-up of the ring's fd in each enter (Linux 5.18); without it nothing else changes.
    fn register_fd(&mut self) {
        match self.change_registration(REGISTER_RING_FDS, u32::MAX) {
            Some(index) => {
                self.enter_fd = index;
                self.enter_flags = EnterFlags::REGISTERED_RING;
            }
            // An older kernel, or all sixteen places of this thread are taken: not to be asked for again.
            None => self.registers_fd = false,
        }
    }

    /// The calling thread, if it runs the ring, lets go of it: closing its fd then really ends it.
    pub(super) fn unregister_fd(&mut self) {
        if self.is_registered() && !self.is_foreign() && self.generation.is_current() {
            self.change_registration(UNREGISTER_RING_FDS, self.enter_fd as u32);
            self.enter_fd = self.io.as_raw_fd();
            self.enter_flags = EnterFlags::empty();
        }
    }

    /// # Errors
    /// As `io_uring_register(2)` with IORING_REGISTER_PBUF_RING.
    pub(super) fn register_buffers(&self, entries: *mut u8, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: entries of the right number. The kernel holds their pages until the group is unregistered or the ring
        // has ended, whatever becomes of the mapping.
        unsafe {
            self.io
                .submitter()
                .register_buf_ring_with_flags(entries as u64, count, group, 0)
        }
    }

    /// An op that receives into the group afterwards is answered `-ENOBUFS`.
    pub(super) fn unregister_buffers(&self, group: u16) -> io::Result<()> {
        self.io.submitter().unregister_buf_ring(group)
    }

    /// Moves as many entries into the queue as it takes.
    pub(super) fn fill(&mut self, entries: &mut VecDeque<Entry>) {
        self.fills = self.fills.wrapping_add(1);
        let mut queue = self.io.submission();
        while let Some(entry) = entries.front() {
            // SAFETY: what the entry points at is valid until its completion: the contract of `Driver::submit`.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            entries.pop_front();
        }
    }

    pub(super) fn fills(&self) -> u32 {
        self.fills
    }

    /// Entries that the kernel has not taken out of the queue.
    pub(super) fn queued(&self) -> usize {
        self.flag_state().0
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
        queued > 0 || taskrun || overflow || !self.setup.coop
    }

    /// Submits what is queued and waits for one completion, `timeout` at most (zero: does not wait).
    ///
    /// # Errors
    /// As `io_uring_enter(2)`; `ETIME` when the time is over.
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
            // SAFETY: the timespec is ours and outlives the ring.
            let pushed = unsafe { self.io.submission().push(&entry) };
            // With no room for it the wait does not sleep, which is only slower.
            if pushed.is_err() {
                return self.enter(Some(Duration::ZERO));
            }
        }
        let (queued, ..) = self.flag_state();
        let mut flags = self.enter_flags | EnterFlags::GETEVENTS;
        if sleeps && self.no_iowait {
            // A sleeping loop is idle, not waiting for a disk: neither the statistics nor the clock governor differ.
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

impl Drop for Ring {
    fn drop(&mut self) {
        if self.generation.is_current() {
            self.unregister_fd();
            // SAFETY: nothing uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.io) };
            note_closed();
        } else {
            // A forked child did not inherit the ring's memory, and the ranges may be somebody else's by now: only the
            // fd is ours to close.
            // SAFETY: the child's copy of the ring's fd; `io` is never touched again.
            unsafe { libc::close(self.io.as_raw_fd()) };
        }
    }
}
