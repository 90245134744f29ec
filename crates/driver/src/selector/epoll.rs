//! epoll: the kernel keeps the set of fds; the cost of a wait grows with the fds that are ready.
//!
//! Nanosecond timeouts come from `epoll_pwait2` (Linux 5.11); without it, milliseconds rounded up.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Interest, Ready, Selector, interrupted_is_empty, milliseconds, timespec};

const EVENTS: usize = 256;

pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    has_pwait2: bool,
}

// Errors and hang-ups must reach both the reader and the writer.
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

impl Epoll {
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: plain system call, checked below.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh fd that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        Ok(Epoll {
            fd,
            events,
            has_pwait2: true,
        })
    }

    fn control(&self, operation: i32, fd: RawFd, interest: Interest) -> io::Result<()> {
        let mut events = 0;
        if interest.read {
            events |= libc::EPOLLIN as u32;
        }
        if interest.write {
            events |= libc::EPOLLOUT as u32;
        }
        let mut event = libc::epoll_event {
            events,
            u64: fd as u64,
        };
        // SAFETY: the event is local and only read.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn enter(&mut self, timeout: Option<Duration>) -> i32 {
        let (epoll, events) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        let fine = timeout.is_some_and(|timeout| timeout.subsec_nanos() % 1_000_000 != 0);
        if fine && self.has_pwait2 {
            let limit = timespec(timeout.unwrap_or_default());
            // SAFETY: `events` has room for EVENTS entries; the timespec is local; no signal mask.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events,
                    EVENTS as i32,
                    &raw const limit,
                    std::ptr::null::<libc::sigset_t>(),
                    8usize,
                )
            } as i32;
            let missing = result < 0
                && matches!(
                    io::Error::last_os_error().raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM)
                );
            if !missing {
                return result;
            }
            self.has_pwait2 = false;
        }
        // SAFETY: as above.
        unsafe { libc::epoll_wait(epoll, events, EVENTS as i32, milliseconds(timeout)) }
    }
}

impl Selector for Epoll {
    const ENGINE: crate::Engine = crate::Engine::Epoll;
    const WATCH_IS_SYSCALL: bool = true;

    fn watch(
        &mut self,
        fd: RawFd,
        previous: Interest,
        interest: Interest,
        calls: &mut u64,
    ) -> io::Result<()> {
        *calls += 1;
        if interest.is_empty() {
            return match self.control(libc::EPOLL_CTL_DEL, fd, interest) {
                // Closed meanwhile: the kernel dropped it from the set by itself.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBADF)) => Ok(()),
                result => result,
            };
        }
        // Either guess may be wrong: a reused number is not in the set, a duplicated file still is.
        let (first, second) = if previous.is_empty() {
            (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD)
        } else {
            (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD)
        };
        match self.control(first, fd, interest) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {
                *calls += 1;
                self.control(second, fd, interest)
            }
            result => result,
        }
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Ready),
        calls: &mut u64,
    ) -> io::Result<()> {
        *calls += 1;
        let count = interrupted_is_empty(self.enter(timeout))?;
        for event in &self.events[..count] {
            let (events, fd) = (event.events, event.u64 as RawFd);
            let broken = events & BROKEN != 0;
            each(Ready {
                fd,
                read: broken || events & libc::EPOLLIN as u32 != 0,
                write: broken || events & libc::EPOLLOUT as u32 != 0,
                invalid: false,
            });
        }
        Ok(())
    }
}
