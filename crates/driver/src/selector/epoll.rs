//! epoll: the kernel keeps the set of fds. The cost of a wait grows with the number of fds that are ready.
//!
//! The set holds *files*, each under the number that it was added by. If the program closes the number while a
//! duplicate keeps the file open, the file stays in the set and the kernel goes on reporting it. Nothing can remove
//! it, because the number names nothing or another file (epoll(7), "Questions and answers", 6). So every watch has a
//! stamp, and its events carry the stamp. An event whose stamp is not the number's present one belongs to such a
//! file, and then the engine makes a new set.
//!
//! `epoll_pwait2` (Linux 5.11) takes timeouts in nanoseconds. Without it they are milliseconds, rounded up.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Event, Interest, Selector, interrupted_is_empty, milliseconds, timespec};
use crate::ops::NOT_ONLY_BYTES;
use crate::pages::Pages;
use crate::stats::Stats;

const EVENTS: usize = 256;

/// What a number is watched for, and the stamp of that watch.
#[derive(Clone, Copy, Default)]
struct Entry {
    interest: Interest,
    /// 0: not watched.
    stamp: u32,
}

pub struct Epoll {
    fd: OwnedFd,
    /// Indexed by the number of the fd.
    entries: Pages<Entry>,
    stamp: u32,
    events: Vec<libc::epoll_event>,
    has_pwait2: bool,
}

// Errors and hang-ups count as ready in both directions, so that both the reader and the writer see them.
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const BYTES: u32 = libc::EPOLLIN as u32;
/// The pause between two attempts to make a new set when the process has no fd left for it.
const PAUSE: Duration = Duration::from_millis(1);

fn create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes an int; its result is checked below.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Epoll {
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll {
            fd: create()?,
            entries: Pages::default(),
            stamp: 0,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            has_pwait2: true,
        })
    }

    fn control(&self, operation: i32, fd: RawFd, entry: Entry, stats: &mut Stats) -> io::Result<()> {
        stats.syscalls += 1;
        let mut events = 0;
        if entry.interest.read {
            events |= BYTES;
            if entry.interest.edges {
                events |= NOT_ONLY_BYTES;
            }
        }
        if entry.interest.write {
            events |= libc::EPOLLOUT as u32;
        }
        if entry.interest.edges {
            events |= libc::EPOLLET as u32;
        }
        let mut event = libc::epoll_event {
            events,
            u64: u64::from(entry.stamp) << 32 | fd as u64,
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

    /// Makes a new set of everything that is watched, without the files that can't be removed from the old set.
    /// Numbers that are no longer open can't be watched, so they are reported to `each` as invalid.
    fn rebuild(&mut self, each: &mut dyn FnMut(Event), stats: &mut Stats) -> io::Result<()> {
        stats.syscalls += 2;
        self.fd = create()?;
        stats.rebuilds += 1;
        for (fd, entry) in self.entries.iter().enumerate() {
            let fd = fd as RawFd;
            if !entry.interest.is_empty() && self.control(libc::EPOLL_CTL_ADD, fd, *entry, stats).is_err() {
                each(Event {
                    fd,
                    read: true,
                    write: true,
                    other: true,
                    invalid: true,
                });
            }
        }
        Ok(())
    }
}

impl Selector for Epoll {
    const ENGINE: crate::Engine = crate::Engine::Epoll;
    const TELLS_EDGES: bool = true;

    fn watched(&self, fd: RawFd) -> Interest {
        let index = usize::try_from(fd).ok();
        let entry = index.and_then(|index| self.entries.get(index));
        entry.map_or_else(Interest::default, |entry| entry.interest)
    }

    fn watch(&mut self, fd: RawFd, interest: Interest, stats: &mut Stats) -> io::Result<()> {
        let index = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        let previous = self.watched(fd);
        if interest.is_empty() {
            if !previous.is_empty() {
                self.entries[index] = Entry::default();
                // If this fails, the number no longer names that file. If the file stays in the set, stale events
                // will show it.
                let _ = self.control(libc::EPOLL_CTL_DEL, fd, Entry::default(), stats);
            }
            return Ok(());
        }
        // Every watch gets a new stamp, because a number may name a file, then another, then the first again.
        self.stamp = self.stamp.wrapping_add(1).max(1);
        let entry = Entry {
            interest,
            stamp: self.stamp,
        };
        // `previous` does not tell for sure whether the set has the number: a reused number is not in the set, and a
        // file with a duplicate still is.
        let (first, second) = if previous.is_empty() {
            (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD)
        } else {
            (libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_ADD)
        };
        match self.control(first, fd, entry, stats) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EEXIST)) => {
                self.control(second, fd, entry, stats)?;
            }
            result => result?,
        }
        self.entries.reach(index);
        self.entries[index] = entry;
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Event),
        stats: &mut Stats,
    ) -> io::Result<()> {
        stats.syscalls += 1;
        let count = interrupted_is_empty(self.enter(timeout))?;
        let mut stale = 0;
        for event in &self.events[..count] {
            let (events, data) = (event.events, event.u64);
            let (fd, stamp) = (data as u32, (data >> 32) as u32);
            if self.entries.get(fd as usize).map(|entry| entry.stamp) != Some(stamp) {
                stale += 1;
                continue;
            }
            each(Event {
                fd: fd as RawFd,
                read: events & (BROKEN | BYTES | NOT_ONLY_BYTES) != 0,
                write: events & (BROKEN | libc::EPOLLOUT as u32) != 0,
                other: events & (BROKEN | NOT_ONLY_BYTES) != 0,
                invalid: false,
            });
        }
        if stale > 0 && self.rebuild(each, stats).is_err() && stale == count {
            // The process has no fd for a new set now. The old set wakes the engine at once each time, so sleep.
            std::thread::sleep(timeout.unwrap_or(PAUSE).min(PAUSE));
        }
        Ok(())
    }
}
