//! Tells whether this process is a fork of the process that opened an engine.
//!
//! A forked child shares the parent's epoll set and ring. If it touched them, it would corrupt the parent. So engines
//! ask first. A counter that `pthread_atfork(3)` increments costs one load per turn; `getpid` would cost a system
//! call.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);
static HOOK: Once = Once::new();

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process generation in which an engine was opened.
#[derive(Clone, Copy, Debug)]
pub struct Generation(u32);

impl Generation {
    pub fn current() -> Generation {
        HOOK.call_once(|| {
            // SAFETY: the handler only increments an atomic, which is async-signal-safe.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        });
        Generation(FORKS.load(Ordering::Relaxed))
    }

    pub fn is_current(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }

    /// Fails with `EOWNERDEAD` in a forked child.
    pub fn check(self) -> io::Result<()> {
        if self.is_current() {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EOWNERDEAD))
        }
    }
}
