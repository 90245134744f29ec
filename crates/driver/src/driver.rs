//! The contract that every engine keeps, and the list of engines.
//!
//! A turn has this order: the loop submits ops, then calls [`Driver::wait`] once. `wait` hands the queued ops to the
//! kernel, waits, and moves every completion into a batch. The loop looks at the batch after `wait` has returned.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::call::Call;
use crate::clock::{Clock, Monotonic};
use crate::completion::{Completion, Token};
use crate::features::Features;
use crate::ops::Op;
use crate::pool::PoolCounts;
use crate::stats::Stats;
use crate::waker::Waker;

/// The outcome of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The op is done. This is its result; no completion will follow.
    Ready(i32),
    /// The op is in flight. Its terminal completion will carry the token.
    Pending,
}

/// An engine.
pub trait Driver: Send {
    /// The engine's name: one of [`Engine::ALL`], or another for an engine that a caller makes.
    fn name(&self) -> &'static str;

    /// Hands an op to the engine under a token that the caller chooses. The token is unique among the ops in flight.
    ///
    /// # Safety
    /// All memory that the op points at stays valid and unmoved until the op's terminal completion, and nobody else
    /// touches it until then. This also holds when the driver is dropped while the op is in flight (see
    /// [`Driver::shutdown`]).
    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted;

    /// Asks an op in flight to end soon. The call is advisory: the terminal completion follows in any case, with
    /// `-ECANCELED` or with the op's own result if the op completed before the cancel reached it. An unknown token is
    /// ignored.
    ///
    /// True: this call has ended the op. Its `-ECANCELED` comes with the next wait, and until then the op takes no
    /// bytes and no connections. False: the op may still take some, or it has ended, or the token is unknown.
    fn cancel(&mut self, token: Token) -> bool;

    /// Submits what is queued, waits at most `timeout` (`None`: without limit) for a completion or a wake-up, and
    /// appends every completion to `batch`. An empty batch is no error.
    ///
    /// # Errors
    /// Errors of the kernel that do not belong to one op. `EOWNERDEAD` in a forked child. `AlreadyExists` when
    /// another thread has run a ring and either has not let go of it ([`Driver::unbind`]) or has left ops in flight
    /// that can't be moved: ops with a single completion that the kernel already has, with memory of the submitter.
    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()>;

    /// Hands what is queued to the kernel now, without waiting. Completions stay for the next wait. Afterwards the
    /// kernel has let go of the cancelled ops and of their files; ops that a worker thread runs are the exception.
    ///
    /// # Errors
    /// The errors of [`Driver::wait`].
    fn flush(&mut self) -> io::Result<()>;

    /// Stops watching an fd that the caller is about to close and that no op in flight uses. Without this call the
    /// selector would go on reporting the fd while a duplicate stays open (of a terminal, or of a pipe in a forked
    /// child).
    fn forget(&mut self, _fd: RawFd) {}

    /// Whether ops in flight make progress outside of `wait` and `flush`. If so, a cancelled op may still take bytes
    /// or connections until its cancel has been handed to the kernel.
    fn acts_between_waits(&self) -> bool {
        false
    }

    /// Whether a poll that asks for [`crate::ops::EDGES`] may tell of something that has come only once, and not again of
    /// what was left of it.
    fn tells_edges(&self) -> bool {
        false
    }

    /// Whether `wait` with a timeout of zero would find anything. The answer costs a memory load. `None`: only a
    /// system call can tell.
    fn has_work(&self) -> Option<bool>;

    /// Submits what is queued, and tells whether something has come, or a wake-up: then a wait would not sleep. What has
    /// come stays for the next wait. Called again and again by a loop that spins, directly before a wait. The ring
    /// answers from memory while nothing has come; each other engine makes a system call.
    ///
    /// # Errors
    /// The errors of [`Driver::wait`].
    fn look(&mut self) -> io::Result<bool> {
        Ok(self.has_work() != Some(false))
    }

    /// The bytes of a completion that has [`crate::Flags::DATA`]. They stay valid until [`Driver::release`], over any
    /// number of waits.
    fn data(&self, completion: &Completion) -> &[u8];

    /// Gives the buffer of a completion back. The engine can't receive into a buffer that was not given back.
    fn release(&mut self, completion: &Completion);

    /// Wakes the engine from any thread.
    fn waker(&self) -> Waker;

    fn stats(&self) -> &Stats;

    fn stats_mut(&mut self) -> &mut Stats;

    /// The threads that carry out what the engine can't do without blocking.
    fn pool(&self) -> PoolCounts {
        PoolCounts::NONE
    }

    /// The clock that the timeouts of [`Driver::wait`] follow: `CLOCK_MONOTONIC`, except in an engine that
    /// simulates time.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Monotonic)
    }

    /// Tries an op now, without blocking and independently of the ops in flight. Returns its result, or
    /// [`crate::syscalls::AGAIN`]. A connect that has begun returns `-EINPROGRESS`.
    ///
    /// A transfer of a regular file at its current position waits for the disk; a transfer at an offset returns
    /// `AGAIN`.
    ///
    /// # Safety
    /// The memory that the op points at is valid, as [`Driver::submit`] demands.
    unsafe fn attempt(&mut self, op: &Op) -> i32 {
        // SAFETY: the caller's contract.
        unsafe { op.attempt_counted(&mut self.stats_mut().syscalls) }
    }

    /// Makes a system call that is not an op.
    fn call(&mut self, call: Call<'_>) -> i32 {
        call.make(&mut self.stats_mut().syscalls)
    }

    /// The features of the ring; `None` for an engine without a ring.
    fn features(&self) -> Option<&Features> {
        None
    }

    /// Lets go of the calling thread, which has called `wait` and now leaves the loop. Another thread may call `wait`
    /// only after this call or after this thread has ended. This thread may call `wait` again at any time. Makes at
    /// most one system call.
    fn unbind(&mut self) {}

    /// Cancels every op in flight and waits, at most `limit`, until the kernel holds no memory of the submitters.
    /// Returns how many ops are still in flight: their memory must be leaked, not freed. Completions are not
    /// delivered; fds in them are closed.
    fn shutdown(&mut self, limit: Duration) -> usize;
}

/// The engines, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    IoUring,
    Epoll,
    Poll,
    Select,
}

impl Engine {
    pub const ALL: [Engine; 4] = [Engine::IoUring, Engine::Epoll, Engine::Poll, Engine::Select];

    pub fn name(self) -> &'static str {
        match self {
            Engine::IoUring => "io_uring",
            Engine::Epoll => "epoll",
            Engine::Poll => "poll",
            Engine::Select => "select",
        }
    }

    pub fn from_name(name: &str) -> Option<Engine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// The settings of an engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Submission queue entries of a ring (rounded up to a power of two by the kernel).
    pub entries: u32,
    /// Completion queue entries of a ring. 0: chosen by the limit of locked memory, at least eight times `entries`.
    pub cq_entries: u32,
    /// How many buffers the ring may receive into at the start. The number doubles each time the ring runs out of
    /// them, up to `max_buffers`.
    pub buffers: u16,
    pub max_buffers: u16,
    /// Size of one buffer, in bytes.
    pub buffer_size: u32,
    /// Opcodes and features that the engine does without, as if the kernel had refused them (see
    /// [`Config::deny_from_env`]).
    pub deny: Vec<String>,
}

impl Default for Config {
    /// A small ring, because the kernel counts rings as locked memory of the user, over all processes, and 8 MiB is a
    /// common limit. More submissions than `entries` take several calls.
    fn default() -> Config {
        Config {
            entries: 128,
            cq_entries: 0,
            buffers: 128,
            max_buffers: 4096,
            buffer_size: 4096,
            deny: Config::deny_from_env(),
        }
    }
}

impl Config {
    /// Reads `PROACT_URING_DENY`, for tests of fallbacks: comma-separated opcodes (`recv`, `accept`, ...) that the
    /// ring is forbidden to use, and features (`defer_taskrun`, `single_issuer`, `coop_taskrun`, `plain`, `buf_ring`,
    /// `multishot_recv`, `multishot_accept`, `multishot_poll`, `ext_arg`, `no_iowait`, `ring_fds`) that it does without.
    pub fn deny_from_env() -> Vec<String> {
        let value = std::env::var("PROACT_URING_DENY").unwrap_or_default();
        value
            .split(',')
            .map(|word| word.trim().to_lowercase())
            .filter(|word| !word.is_empty())
            .collect()
    }
}
