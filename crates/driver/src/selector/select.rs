//! select: bit sets that are copied in and out for each wait. They can't hold fds at or above `FD_SETSIZE` (1024).

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Event, Interest, Selector, interrupted_is_empty, timespec};
use crate::stats::Stats;

pub struct Select {
    read: libc::fd_set,
    write: libc::fd_set,
    highest: RawFd,
}

fn empty() -> libc::fd_set {
    // SAFETY: an fd_set of zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

fn set(set: &mut libc::fd_set, fd: RawFd, member: bool) {
    // SAFETY: callers pass only fds in 0..FD_SETSIZE.
    unsafe {
        if member {
            libc::FD_SET(fd, set)
        } else {
            libc::FD_CLR(fd, set)
        }
    }
}

fn has(set: &libc::fd_set, fd: RawFd) -> bool {
    // SAFETY: callers pass only fds in 0..FD_SETSIZE.
    unsafe { libc::FD_ISSET(fd, set) }
}

impl Select {
    #[expect(clippy::new_without_default, reason = "a selector is opened, not defaulted")]
    pub fn new() -> Select {
        Select {
            read: empty(),
            write: empty(),
            highest: -1,
        }
    }

    /// Checks each fd and reports the closed ones, so that their ops end: select only says that there is one.
    fn report_invalid(&mut self, each: &mut dyn FnMut(Event)) {
        for fd in 0..=self.highest {
            // SAFETY: F_GETFD only reads the fd table.
            if !self.watched(fd).is_empty() && unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
                each(Event {
                    fd,
                    read: true,
                    write: true,
                    other: true,
                    invalid: true,
                });
            }
        }
    }
}

impl Selector for Select {
    const ENGINE: crate::Engine = crate::Engine::Select;

    fn watched(&self, fd: RawFd) -> Interest {
        if !(0..=self.highest).contains(&fd) {
            return Interest::default();
        }
        Interest {
            read: has(&self.read, fd),
            write: has(&self.write, fd),
            edges: false,
        }
    }

    fn watch(&mut self, fd: RawFd, interest: Interest, _stats: &mut Stats) -> io::Result<()> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if fd as usize >= libc::FD_SETSIZE {
            // The bit would lie outside of the set.
            return if interest.is_empty() {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ERANGE))
            };
        }
        set(&mut self.read, fd, interest.read);
        set(&mut self.write, fd, interest.write);
        self.highest = self.highest.max(fd);
        while self.highest >= 0 && self.watched(self.highest).is_empty() {
            self.highest -= 1;
        }
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Event),
        stats: &mut Stats,
    ) -> io::Result<()> {
        stats.syscalls += 1;
        let (mut read, mut write) = (self.read, self.write);
        let limit = timeout.map(timespec);
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: two local sets that cover 0..=highest < FD_SETSIZE; there is no signal mask.
        let result = unsafe {
            libc::pselect(
                self.highest + 1,
                &raw mut read,
                &raw mut write,
                std::ptr::null_mut(),
                limit,
                std::ptr::null(),
            )
        };
        if result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF) {
            self.report_invalid(each);
            return Ok(());
        }
        let mut left = interrupted_is_empty(result)?;
        for fd in 0..=self.highest {
            if left == 0 {
                break;
            }
            let (readable, writable) = (has(&read, fd), has(&write, fd));
            left = left.saturating_sub(usize::from(readable) + usize::from(writable));
            if readable || writable {
                each(Event {
                    fd,
                    read: readable,
                    write: writable,
                    other: false,
                    invalid: false,
                });
            }
        }
        Ok(())
    }
}
