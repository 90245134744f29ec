//! The interface of select, poll and epoll to a readiness engine. Each has one small file.

pub mod epoll;
pub mod poll;
pub mod select;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::stats::Stats;

/// The directions that an fd is watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
    /// It is enough to be told once of what comes. Only for a selector that can ([`Selector::TELLS_EDGES`]).
    pub edges: bool,
}

impl Interest {
    pub fn is_empty(self) -> bool {
        !self.read && !self.write
    }
}

/// One fd that is ready. Errors and hang-ups count as ready in both directions: the next attempt shows them.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub fd: RawFd,
    pub read: bool,
    pub write: bool,
    /// Not only bytes have come: see [`crate::ops::EDGES`]. Only a selector that tells edges says so.
    pub other: bool,
    /// The fd is no longer open: the program has closed it without telling the engine.
    pub invalid: bool,
}

/// A system call that reports readiness, level-triggered unless asked otherwise.
pub trait Selector: Send {
    const ENGINE: crate::Engine;

    /// Whether it can report edges.
    const TELLS_EDGES: bool = false;

    /// The directions that `fd` is watched for.
    fn watched(&self, fd: RawFd) -> Interest;

    /// Watches `fd` for exactly `interest` from now on. It watches the file that the number names now: the previous
    /// file may have been closed and another file may have taken its number. An empty `interest` ends the watch,
    /// which never fails. The system calls are counted in `stats`.
    ///
    /// # Errors
    /// `EPERM` for files without readiness, `EBADF`, `ERANGE` for an fd that is too high for the system call. The
    /// watch is unchanged then.
    fn watch(&mut self, fd: RawFd, interest: Interest, stats: &mut Stats) -> io::Result<()>;

    /// Waits, at most `timeout`, and calls `each` for each fd that is ready. A signal ends the wait early.
    ///
    /// # Errors
    /// The errors of the system call.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Event),
        stats: &mut Stats,
    ) -> io::Result<()>;
}

/// A timeout in milliseconds, rounded up, so that a wait does not end early and spin.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(timeout) => i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    }
}

/// The count of a wait, 0 if a signal ended it.
fn interrupted_is_empty(result: i32) -> io::Result<usize> {
    match usize::try_from(result) {
        Ok(count) => Ok(count),
        Err(_) => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                Ok(0)
            } else {
                Err(error)
            }
        }
    }
}
