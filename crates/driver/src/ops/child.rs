//! The op that waits for a child process.

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::squeue::Entry;

use super::operation::{Course, Direction, Facts, Movable, NO_FILE, Operation};
use crate::syscalls::{AGAIN, check, poll_now, retry};

/// Wait until the child process of a pidfd has ended. The op leaves the exit status to be collected (`WNOWAIT` of
/// waitid(2)), so that the kernel does not reuse the pid before the program knows.
#[derive(Clone, Copy, Debug)]
pub struct WaitId {
    pub pidfd: RawFd,
}

impl Operation for WaitId {
    const FACTS: Facts = Facts {
        movable: Movable::Always,
        ..Facts::new("waitid", ("waitid", opcode::WaitId::CODE))
    };

    const SAMPLE: Self = WaitId { pidfd: NO_FILE };

    fn course(&self) -> Course {
        Course::Once(self.pidfd, Direction::Read)
    }

    fn entry(&self, _group: u16) -> Entry {
        let options = libc::WEXITED | libc::WNOWAIT;
        opcode::WaitId::new(libc::P_PIDFD, self.pidfd as libc::id_t, options).build()
    }

    /// Polls the pidfd where a filter forbids waitid: it is readable once the child has ended (pidfd_open(2)).
    unsafe fn attempt(&self, calls: &mut u64) -> i32 {
        // SAFETY: all zeros is a valid siginfo_t. waitid leaves it so while the child runs.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        let result = retry(calls, || {
            // SAFETY: a local structure to fill.
            check(i64::from(unsafe {
                libc::waitid(libc::P_PIDFD, self.pidfd as libc::id_t, &raw mut info, options)
            }))
        });
        match -result {
            0 if info.si_signo == 0 => AGAIN,
            libc::EPERM | libc::EACCES | libc::ENOSYS => {
                *calls += 1;
                poll_now(self.pidfd, libc::POLLIN as u32).min(0)
            }
            _ => result,
        }
    }
}
