//! The contract that every engine keeps, and the choice among them.
//!
//! The order of a turn: the loop submits ops, then calls [`Driver::wait`] once; `wait` hands over all that was queued,
//! waits, and drains every completion into a batch. Only then does the loop look at the batch.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::completion::{Completion, Token};
use crate::features::Features;
use crate::ops::Op;
use crate::stats::Stats;
use crate::waker::Waker;

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Done at once: the result; no completion will follow.
    Ready(i32),
    /// In flight: the terminal completion will carry the token.
    Pending,
}

/// An engine.
pub trait Driver: Send {
    fn engine(&self) -> Engine;

    /// Hands an op to the engine under a token of the caller's choice, unique among the ops in flight.
    ///
    /// # Safety
    /// All memory that the op points at stays valid and unmoved until the op's terminal completion, and is not
    /// touched by anyone else meanwhile. The same holds after the driver is dropped with the op still in flight
    /// (see [`Driver::shutdown`]).
    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted;

    /// Asks for an op in flight to end soon. Advisory: the terminal completion follows in any case, with
    /// `-ECANCELED` or with what the op did before the cancel reached it. An unknown token is ignored.
    ///
    /// True: this call has ended the op. Its `-ECANCELED` comes with the next wait, and it takes nothing any more,
    /// whatever happens until then. False: it may still take something (or has ended, or the token is unknown).
    fn cancel(&mut self, token: Token) -> bool;

    /// Submits what is queued, waits at most `timeout` (`None`: until something happens) for a completion or a wake-up,
    /// and appends all that has completed to `batch`. Returning with an empty batch is no error.
    ///
    /// # Errors
    /// What the kernel says that is not about one op; `EOWNERDEAD` in a forked child; `AlreadyExists` where another
    /// thread has run a ring, and has not let go of it ([`Driver::unbind`]) or has left ops in flight that can't be moved:
    /// single ones, handed over, with memory of the submitter's.
    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()>;

    /// Hands over what is queued, now, without waiting; completions stay for the next wait. After this the kernel has
    /// let go of what was cancelled (and of its file), worker threads excepted.
    ///
    /// # Errors
    /// As [`Driver::wait`].
    fn flush(&mut self) -> io::Result<()>;

    /// Somebody else is about to close an fd that no op in flight uses: the engine no longer watches it. Without this a
    /// duplicate that stays open (of a terminal, of a pipe in a forked child) would go on being reported.
    fn forget(&mut self, _fd: RawFd) {}

    /// Whether ops in flight go on also outside of `wait` and `flush`: what is cancelled may take something until it is
    /// handed over.
    fn acts_between_waits(&self) -> bool {
        false
    }

    /// Whether `wait` with no timeout would find anything: a memory load. `None`: only a system call can tell.
    fn has_work(&self) -> Option<bool>;

    /// The bytes of a completion that has [`crate::Flags::DATA`], until it is released, over any number of waits.
    fn data(&self, completion: &Completion) -> &[u8];

    /// Gives the buffer of such a completion back. Held buffers are no longer there to receive into.
    fn release(&mut self, completion: &Completion);

    /// Wakes the engine from any thread.
    fn waker(&self) -> Waker;

    fn stats(&self) -> &Stats;

    /// The ring's features, where the engine has one.
    fn features(&self) -> Option<&Features> {
        None
    }

    /// The thread that has called `wait` leaves the loop. Only then, or when that thread has ended, may another thread
    /// call `wait`; it may itself, at any time. At most one system call.
    fn unbind(&mut self) {}

    /// Cancels all that is in flight and waits, `limit` at most, until the kernel holds no memory of ours.
    /// Returns how many ops are still in flight: their memory must be leaked rather than freed. Completions are not
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

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Submission queue entries of a ring (rounded up to a power of two by the kernel).
    pub entries: u32,
    /// Completion queue entries of a ring; 0: as the limit of locked memory permits, eight times `entries` at least.
    pub cq_entries: u32,
    /// Buffers of the ring's buffer ring at the start; it doubles each time it runs dry, up to `max_buffers`.
    pub buffers: u16,
    pub max_buffers: u16,
    /// Size of one of those buffers, in bytes.
    pub buffer_size: u32,
    /// Opcodes and features to do without, as if the kernel had refused them (see [`Config::deny_from_env`]).
    pub deny: Vec<String>,
}

impl Default for Config {
    /// As small as its use allows: the kernel counts a ring as locked memory of the user, over all processes, and 8 MiB
    /// are an ordinary limit. More submissions than `entries` go in several calls.
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
    /// `PROACT_URING_DENY`: comma-separated opcodes (`recv`, `accept`, ...) that the ring is forbidden to use, and
    /// features (`defer_taskrun`, `single_issuer`, `coop_taskrun`, `plain`, `buf_ring`, `multishot_recv`,
    /// `multishot_accept`, `ext_arg`, `no_iowait`, `ring_fds`) that it does without. For tests of fallbacks.
    pub fn deny_from_env() -> Vec<String> {
        let value = std::env::var("PROACT_URING_DENY").unwrap_or_default();
        value
            .split(',')
            .map(|word| word.trim().to_lowercase())
            .filter(|word| !word.is_empty())
            .collect()
    }
}
