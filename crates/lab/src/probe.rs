//! What a process's I/O calls cost it, accounted from inside the process and read from outside it.
//!
//! [`install`] puts a wrapper before libc's I/O functions in every loaded object (`got`), so that it sees the calls of
//! the interpreter and of C and Rust libraries alike. Around each call a wrapper reads the monotonic clock, the
//! thread's CPU clock and, where the thread was off the CPU, `/proc/thread-self/schedstat`, and adds to a table in
//! shared memory (`table`), which [`Reader`] reads in another process. Nothing is written, sent or locked meanwhile.
//!
//! What libc calls inside itself (its AIO threads) is not seen, nor what the kernel's workers do.

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

/// Accounts every I/O call of this process from now on into the table that `fd` is, made by [`Reader::new`]. Once a
/// process, before it has other threads.
///
/// # Errors
/// `EEXIST` when it is installed already, `EINVAL` when `fd` is no such table, what mmap(2) and mprotect(2) report.
pub fn install(fd: OwnedFd) -> io::Result<()> {
    record::begin(table::Table::map(&fd)?)?;
    got::remember();
    call::find_originals();
    got::redirect()?;
    record::measure_overhead();
    Ok(())
}
