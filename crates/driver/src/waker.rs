//! Wakes a sleeping engine from any thread. Makes a system call only when the engine sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fork::Generation;

const RUNNING: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    /// `None`: the waker does nothing. The lock is held to write to the event and to close it.
    event: Mutex<Option<OwnedFd>>,
    /// The event's fd. Only valid while the engine lives.
    fd: RawFd,
    generation: Generation,
}

/// A handle that wakes an engine. Cheap to clone, usable on any thread, harmless after the engine was dropped.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        // SAFETY: plain system call; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh fd that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Waker(Arc::new(Shared {
            state: AtomicU8::new(RUNNING),
            event: Mutex::new(Some(event)),
            fd,
            generation: Generation::current(),
        })))
    }

    /// A waker that does nothing.
    pub fn detached() -> Waker {
        Waker(Arc::new(Shared {
            state: AtomicU8::new(RUNNING),
            event: Mutex::new(None),
            fd: -1,
            generation: Generation::current(),
        }))
    }

    /// Closes the event once the engine has gone. Afterwards this waker and its clones do nothing.
    pub fn detach(&self) {
        if let Some(mut event) = self.event() {
            *event = None;
        }
    }

    /// Locks the event. `None` in a forked child: a thread that the child does not have may hold the lock for ever,
    /// and the event belongs to the parent.
    fn event(&self) -> Option<MutexGuard<'_, Option<OwnedFd>>> {
        let lock = || self.0.event.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.generation.is_current().then(lock)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.fd
    }

    /// Ends the engine's wait, or makes its next wait return at once. After that wait the loop sees everything that
    /// this thread wrote before this call.
    pub fn wake(&self) {
        if self.0.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
            && let Some(event) = self.event()
            && let Some(event) = &*event
        {
            let one = 1u64;
            // SAFETY: eight readable bytes, and an fd that is open while the lock is held. The write can only fail
            // when the counter is full, and then the engine wakes as well (eventfd(2)).
            unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }

    /// Called before a wait. True if the engine may sleep, false if a wake-up has come already.
    pub(crate) fn fall_asleep(&self) -> bool {
        self.0
            .state
            .compare_exchange(RUNNING, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Whether a wake-up has come that no wait has seen.
    pub(crate) fn is_notified(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == NOTIFIED
    }

    /// Called after a wait. It leaves the event readable: the engine that sees it readable calls [`Waker::drain`].
    pub(crate) fn awake(&self) {
        self.0.state.swap(RUNNING, Ordering::AcqRel);
    }

    pub(crate) fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: eight writable bytes. EAGAIN means that there is nothing to drain. The calling engine still has its
        // fd.
        unsafe { libc::read(self.fd(), (&raw mut count).cast(), 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread of the parent may hold the lock, to wake the engine, at the moment of the fork.
    #[test]
    fn a_forked_child_waits_for_no_lock() {
        let waker = Waker::new().expect("an eventfd");
        assert!(waker.fall_asleep());
        let held = waker.event();
        // SAFETY: the child only makes the calls under test and exits; alarm(2) ends it if they hang.
        let status = unsafe {
            match libc::fork() {
                0 => {
                    libc::alarm(5);
                    waker.wake();
                    waker.detach();
                    libc::_exit(0);
                }
                pid => {
                    let mut status = -1;
                    libc::waitpid(pid, &raw mut status, 0);
                    status
                }
            }
        };
        assert_eq!(status, 0);
        drop(held);
        // The child has not woken the parent.
        let mut count = 0u64;
        // SAFETY: eight writable bytes.
        let read = unsafe { libc::read(waker.fd(), (&raw mut count).cast(), 8) };
        assert_eq!(read, -1, "woken {count} times");
    }
}
