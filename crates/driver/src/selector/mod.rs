//! What a readiness engine needs of select, poll or epoll: one small file each.

pub mod epoll;
pub mod poll;
pub mod select;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::stats::Stats;

/// What an fd is watched for, and what was seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub fn is_empty(self) -> bool {
        !self.read && !self.write
    }
}

/// One fd that is ready. Errors and hang-ups count as ready both ways: the next attempt will tell.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    pub fd: RawFd,
    pub read: bool,
    pub write: bool,
    /// The fd itself is no longer valid (closed behind our back).
    pub invalid: bool,
}

/// Level-triggered readiness.
pub trait Selector: Send {
    const ENGINE: crate::Engine;

    /// What `fd` is watched for.
    fn watched(&self, fd: RawFd) -> Interest;

    /// Watches `fd` for exactly `interest` from now on, and the file that the number names now: it may have been closed
    /// since, and its number taken by another file. Empty: no longer, which never fails. What it costs goes to `stats`.
    ///
    /// # Errors
    /// `EPERM` for files that know no readiness, `EBADF`, `ERANGE` where the mechanism can't watch so high an fd. The
    /// watch is as it was then.
    fn watch(&mut self, fd: RawFd, interest: Interest, stats: &mut Stats) -> io::Result<()>;

    /// Waits, at most `timeout`, and calls `each` for each fd that is ready. Returns early when a signal comes.
    ///
    /// # Errors
    /// As the system call.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Ready),
        stats: &mut Stats,
    ) -> io::Result<()>;
}

/// A timeout for calls that take milliseconds, rounded up so that nobody wakes early and spins.
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

/// A signal ends a wait early; that is no error.
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
