//! poll: the process keeps the list and passes all of it to the kernel each time. The cost grows with the number of
//! fds that are watched.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Event, Interest, Selector, interrupted_is_empty, timespec};
use crate::stats::Stats;

#[derive(Default)]
pub struct Poll {
    entries: Vec<libc::pollfd>,
    /// The index into `entries` for each fd; `NOWHERE` for an fd that is not watched.
    indexes: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl Poll {
    pub fn new() -> Poll {
        Poll::default()
    }

    fn remove(&mut self, index: usize) {
        let gone = self.entries.swap_remove(index);
        self.indexes[gone.fd as usize] = NOWHERE;
        if let Some(moved) = self.entries.get(index) {
            self.indexes[moved.fd as usize] = index as u32;
        }
    }
}

impl Selector for Poll {
    const ENGINE: crate::Engine = crate::Engine::Poll;

    fn watched(&self, fd: RawFd) -> Interest {
        let index = usize::try_from(fd)
            .ok()
            .and_then(|number| self.indexes.get(number));
        let entry = index.and_then(|index| self.entries.get(*index as usize));
        let events = entry.map_or(0, |entry| entry.events);
        Interest {
            read: events & libc::POLLIN != 0,
            write: events & libc::POLLOUT != 0,
            edges: false,
        }
    }

    fn watch(&mut self, fd: RawFd, interest: Interest, _stats: &mut Stats) -> io::Result<()> {
        let number = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        if self.indexes.len() <= number {
            self.indexes.resize(number + 1, NOWHERE);
        }
        let index = self.indexes[number];
        if interest.is_empty() {
            if index != NOWHERE {
                self.remove(index as usize);
            }
            return Ok(());
        }
        let mut events = 0;
        if interest.read {
            events |= libc::POLLIN;
        }
        if interest.write {
            events |= libc::POLLOUT;
        }
        if index == NOWHERE {
            self.indexes[number] = self.entries.len() as u32;
            self.entries.push(libc::pollfd {
                fd,
                events,
                revents: 0,
            });
        } else {
            self.entries[index as usize].events = events;
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
        let limit = timeout.map(timespec);
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the length is the array's; the timespec outlives the call; there is no signal mask.
        let result = unsafe {
            libc::ppoll(
                self.entries.as_mut_ptr(),
                self.entries.len() as libc::nfds_t,
                limit,
                std::ptr::null(),
            )
        };
        let mut left = interrupted_is_empty(result)?;
        for entry in &self.entries {
            if left == 0 {
                break;
            }
            if entry.revents == 0 {
                continue;
            }
            left -= 1;
            let broken = entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
            each(Event {
                fd: entry.fd,
                read: broken || entry.revents & libc::POLLIN != 0,
                write: broken || entry.revents & libc::POLLOUT != 0,
                other: broken,
                invalid: entry.revents & libc::POLLNVAL != 0,
            });
        }
        Ok(())
    }
}
