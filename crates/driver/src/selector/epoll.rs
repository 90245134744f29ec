//! epoll: the kernel keeps the set of fds; the cost of a wait grows with the fds that are ready.
//!
//! The set holds *files*, each under the number it was added by. If a number is closed while a duplicate keeps its file
//! open, the file stays in the set, goes on being reported, and can't be removed any more: the number names nothing, or
//! another file (epoll(7), "Questions and answers", 6). So every watch has a generation, which its events carry: an
//! event of another generation than the number's is of such a file, and then the set is made anew.
//!
//! Nanosecond timeouts come from `epoll_pwait2` (Linux 5.11); without it, milliseconds rounded up.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Interest, Ready, Selector, interrupted_is_empty, milliseconds, timespec};
use crate::stats::Stats;

const EVENTS: usize = 256;

/// What a number is watched for, and since when.
#[derive(Clone, Copy, Default)]
struct Entry {
    interest: Interest,
    /// 0: not watched.
    generation: u32,
}

pub struct Epoll {
    fd: OwnedFd,
    /// By number.
    entries: Vec<Entry>,
    generation: u32,
    events: Vec<libc::epoll_event>,
    has_pwait2: bool,
}

// Errors and hang-ups must reach both the reader and the writer.
const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// Between two attempts to make the set anew where no fd is to be had for it.
const PAUSE: Duration = Duration::from_millis(1);

fn create() -> io::Result<OwnedFd> {
    // SAFETY: plain system call, checked below.
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
            entries: Vec::new(),
            generation: 0,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            has_pwait2: true,
        })
    }

    fn control(&self, operation: i32, fd: RawFd, entry: Entry, stats: &mut Stats) -> io::Result<()> {
        stats.syscalls += 1;
        let mut events = 0;
        if entry.interest.read {
            events |= libc::EPOLLIN as u32;
        }
        if entry.interest.write {
            events |= libc::EPOLLOUT as u32;
        }
        let mut event = libc::epoll_event {
            events,
            u64: u64::from(entry.generation) << 32 | fd as u64,
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

    /// A new set of what is watched, without the files that can't be removed from the old one. A number that is no longer
    /// open can't be watched any more: `each` is told.
    fn rebuild(&mut self, each: &mut dyn FnMut(Ready), stats: &mut Stats) -> io::Result<()> {
        stats.syscalls += 2;
        self.fd = create()?;
        stats.rebuilds += 1;
        for (fd, entry) in self.entries.iter().enumerate() {
            let fd = fd as RawFd;
            if !entry.interest.is_empty() && self.control(libc::EPOLL_CTL_ADD, fd, *entry, stats).is_err() {
                each(Ready {
                    fd,
                    read: true,
                    write: true,
                    invalid: true,
                });
            }
        }
        Ok(())
    }
}

impl Selector for Epoll {
    const ENGINE: crate::Engine = crate::Engine::Epoll;

    fn watched(&self, fd: RawFd) -> Interest {
        let place = usize::try_from(fd).ok();
        let entry = place.and_then(|place| self.entries.get(place));
        entry.map_or_else(Interest::default, |entry| entry.interest)
    }

    fn watch(&mut self, fd: RawFd, interest: Interest, stats: &mut Stats) -> io::Result<()> {
        let place = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        let previous = self.watched(fd);
        if interest.is_empty() {
            if !previous.is_empty() {
                self.entries[place] = Entry::default();
                // Where it fails the number names that file no longer. If the file stays in the set, its events tell.
                let _ = self.control(libc::EPOLL_CTL_DEL, fd, Entry::default(), stats);
            }
            return Ok(());
        }
        // Another one each time: a number may come back to a file that it named before.
        self.generation = self.generation.wrapping_add(1).max(1);
        let entry = Entry {
            interest,
            generation: self.generation,
        };
        // Either guess may be wrong: a reused number is not in the set, a duplicated file still is.
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
        if self.entries.len() <= place {
            self.entries.resize(place + 1, Entry::default());
        }
        self.entries[place] = entry;
        Ok(())
    }

    fn wait(
        &mut self,
        timeout: Option<Duration>,
        each: &mut dyn FnMut(Ready),
        stats: &mut Stats,
    ) -> io::Result<()> {
        stats.syscalls += 1;
        let count = interrupted_is_empty(self.enter(timeout))?;
        let mut stale = 0;
        for event in &self.events[..count] {
            let (events, data) = (event.events, event.u64);
            let (fd, generation) = (data as u32, (data >> 32) as u32);
            if self.entries.get(fd as usize).map(|entry| entry.generation) != Some(generation) {
                stale += 1;
                continue;
            }
            let broken = events & BROKEN != 0;
            each(Ready {
                fd: fd as RawFd,
                read: broken || events & libc::EPOLLIN as u32 != 0,
                write: broken || events & libc::EPOLLOUT as u32 != 0,
                invalid: false,
            });
        }
        if stale > 0 && self.rebuild(each, stats).is_err() && stale == count {
            // There is no fd for a new set now, and the old one wakes us at once.
            std::thread::sleep(timeout.unwrap_or(PAUSE).min(PAUSE));
        }
        Ok(())
    }
}
