//! Locked memory: the limit that applies to this process, and a ring's share of it. The kernel counts rings as locked
//! memory.
//!
//! The limit is one per user, over all processes, so a ring has to be small where there is a limit. A completion
//! queue that is too small loses nothing, but costs time when a thousand connections have completions at once. So the
//! queue takes a two-hundredth of the limit, and has 16384 entries where no limit applies.

use std::ffi::CStr;
use std::fs;

use crate::driver::Config;

/// How many rings fit into one user's limit.
const RINGS: u64 = 200;
const PAGE: usize = 4096;
const COMPLETIONS: u32 = 16384;
const CAP_IPC_LOCK: u32 = 14;

/// How many bytes this process may lock. `None`: the kernel sets no limit to rings.
pub fn limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a local structure to fill.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    let applies = known && limit.rlim_cur != libc::RLIM_INFINITY && counts_rings(&release()) && !is_exempt();
    applies.then_some(limit.rlim_cur)
}

fn release() -> String {
    // SAFETY: all zeros is a valid utsname; uname fills it with strings that end in a zero.
    unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut names);
        CStr::from_ptr(names.release.as_ptr())
            .to_string_lossy()
            .into_owned()
    }
}

/// Whether a kernel of this release counts the memory of rings: since Linux 6.14, and before 5.12.
fn counts_rings(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    !((5, 12)..(6, 14)).contains(&version)
}

/// The first half of the effective capabilities (capget(2)). No capability if the call is refused.
fn capabilities() -> u32 {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// _LINUX_CAPABILITY_VERSION_3 in linux/capability.h.
    const VERSION: u32 = 0x2008_0522;
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut halves = [Half::default(), Half::default()];
    // SAFETY: both structures are local, with the layout of linux/capability.h; version 3 fills two halves.
    unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    halves[0].effective
}

/// Whether this process has CAP_IPC_LOCK outside of a user namespace. With it the kernel sets no limit.
fn is_exempt() -> bool {
    capabilities() >> CAP_IPC_LOCK & 1 == 1
        && fs::read_to_string("/proc/self/uid_map").is_ok_and(|users| users.trim().ends_with("4294967295"))
}

impl Config {
    /// How many entries the completion queue has under a limit of locked memory.
    pub(crate) fn completions(&self, limit: Option<u64>) -> u32 {
        if self.cq_entries > 0 {
            return self.cq_entries.max(self.entries);
        }
        let least = self.entries.max(1).next_power_of_two().saturating_mul(8);
        let mut completions = COMPLETIONS.max(least);
        let share = limit.map_or(u64::MAX, |limit| limit / RINGS);
        while completions > least && self.counted(completions) as u64 > share {
            completions /= 2;
        }
        completions
    }

    /// How many bytes of locked memory the kernel counts for a ring that is opened under this limit.
    pub fn locked_memory(&self, limit: Option<u64>) -> usize {
        self.counted(self.completions(limit))
    }

    /// Sums up both queues with their head, the submission entries, and the buffer ring, each in whole pages
    /// (`io_create_region` in io_uring/memmap.c of Linux 6.18).
    fn counted(&self, completions: u32) -> usize {
        let entries = self.entries.max(1).next_power_of_two() as usize;
        let queues = 64 + completions.next_power_of_two() as usize * 16 + entries * 4;
        let buffers = usize::from(self.first_buffer_entries()) * 16;
        let parts = [queues, entries * 64, buffers];
        parts.iter().map(|bytes| bytes.next_multiple_of(PAGE)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_takes_its_share() {
        let config = Config::default();
        let of = |limit| (config.completions(limit), config.locked_memory(limit));
        assert_eq!(of(Some(0)), (1024, 32 << 10));
        assert_eq!(of(Some(8 << 20)), (1024, 32 << 10));
        assert_eq!(of(Some(16 << 20)).0, 4096);
        assert_eq!(of(Some(64 << 20)).0, 16384);
        assert_eq!(of(None).0, 16384);
        let large = Config {
            entries: 4096,
            ..Config::default()
        };
        assert_eq!(large.completions(Some(0)), 32768);
    }

    #[test]
    fn kernels_that_count() {
        for (release, counts) in [
            ("6.18.44-fc-v669", true),
            ("6.14.0", true),
            ("7.0-rc1", true),
            ("6.13.9", false),
            ("5.15.0-91-generic", false),
            ("5.12.1", false),
            ("5.11.22", true),
            ("?", true),
        ] {
            assert_eq!(counts_rings(release), counts, "{release}");
        }
    }
}
