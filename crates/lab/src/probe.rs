//! Accounts for the cost of a process's I/O calls, from inside the process. Another process reads the accounts.
//!
//! [`install`] makes every loaded object call a wrapper in place of libc's I/O functions (`got`), so that the probe
//! sees the calls of the interpreter and of C and Rust libraries alike. Before and after each call the wrapper reads
//! the monotonic clock, the thread's CPU clock and, if the thread was off the CPU, `/proc/thread-self/schedstat`. It
//! adds the differences to a table in shared memory (`table`), which a [`Reader`] in another process reads. The
//! wrapper writes to no file or socket and takes no lock.
//!
//! The probe does not see calls that libc makes inside itself (its AIO threads), nor the work of the kernel's
//! workers.

mod call;
mod clock;
mod got;
mod record;
mod table;
mod wrappers;

use std::io;
use std::os::fd::OwnedFd;

pub use call::Role;
pub use table::{CallTimes, Event, Reader, Snapshot, ThreadTimes};

/// From now on accounts for every I/O call of this process, in the table that [`Reader::new`] made and that `fd`
/// refers to. Call it once per process, before the process has other threads.
///
/// # Errors
/// `EEXIST` if the probe is installed already, `EINVAL` if `fd` is not such a table, and the errors of mmap(2) and
/// mprotect(2).
pub fn install(fd: OwnedFd) -> io::Result<()> {
    record::begin(table::Table::map(&fd)?)?;
    got::remember();
    call::find_originals();
    got::redirect()?;
    record::measure_overhead();
    Ok(())
}
