//! How many system calls another process makes, with all its threads and all its children.
//!
//! Two ways, tried in this order:
//!
//! - **perf**: a counter on the tracepoint `raw_syscalls:sys_enter`. The kernel counts; the process does not
//!   stop. Cheap (a tenth of a
//!   microsecond or so for each call, on the whole machine while it is on), so batching in the counted server stays
//!   what it is. Needs tracefs mounted and CAP_PERFMON, or `kernel.perf_event_paranoid` -1.
//! - **ptrace**: the process is stopped twice for every call. The count is exact, but the process is *slowed
//!   down tenfold and more*: under load its
//!   turns become longer and its batches larger, so that calls per message come out lower than they are in truth. Needs what a
//!   debugger needs (`kernel.yama.ptrace_scope`: a child of ours is allowed at 0 and 1).
//!
//! Either way counting costs something: do it in a pass of its own, never in the one that measures speed.

mod perf;
mod ptrace;

use std::fs;
use std::io;

enum Counter {
    Perf(perf::Perf),
    Ptrace(ptrace::Ptrace),
}

/// Counts from [`attach`](Self::attach) on, until it is dropped.
///
/// While the method is "ptrace" no thread of *this* process may wait for the counted one (`waitpid`, also
/// WNOHANG, also Python's `Popen.poll`): it would take the stops away from the counter. Drop the counter
/// first.
pub struct SyscallCounter(Counter);

impl SyscallCounter {
    /// Counts the calls of process `pid`: of its threads, its child processes, and all that these will
    /// create. By perf if that is allowed, else by ptrace.
    ///
    /// # Errors
    /// When neither works; the message says why for both. `NotFound` when there is no such process.
    pub fn attach(pid: u32) -> io::Result<Self> {
        let perf = match Self::attach_perf(pid) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => error,
            answer => return answer,
        };
        Self::attach_ptrace(pid).map_err(|ptrace| io::Error::new(ptrace.kind(), format!("{perf}; {ptrace}")))
    }

    /// [`attach`](Self::attach) by perf or not at all.
    ///
    /// # Errors
    /// No tracefs, no permission, no such process.
    pub fn attach_perf(pid: u32) -> io::Result<Self> {
        perf::Perf::attach(pid).map(Counter::Perf).map(Self)
    }

    /// [`attach`](Self::attach) by ptrace or not at all.
    ///
    /// # Errors
    /// No permission, another tracer is there, no such process.
    pub fn attach_ptrace(pid: u32) -> io::Result<Self> {
        ptrace::Ptrace::attach(pid).map(Counter::Ptrace).map(Self)
    }

    /// System calls entered since [`attach`](Self::attach).
    #[must_use]
    pub fn read(&self) -> u64 {
        match &self.0 {
            Counter::Perf(perf) => perf.read(),
            Counter::Ptrace(ptrace) => ptrace.read(),
        }
    }

    /// "perf" or "ptrace".
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.0 {
            Counter::Perf(_) => "perf",
            Counter::Ptrace(_) => "ptrace",
        }
    }
}

/// The threads of `pid` and of all its descendants, as `/proc` has them now, in ascending order.
fn threads_of_tree(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = threads(pid)?;
    let mut processes: Vec<(u32, Vec<u32>)> = vec![(pid, found.clone())];
    while let Some((process, its_threads)) = processes.pop() {
        for thread in its_threads {
            let path = format!("/proc/{process}/task/{thread}/children");
            // Not there without CONFIG_PROC_CHILDREN, or if the thread has just ended: then it has no
            // children.
            let text = fs::read_to_string(path).unwrap_or_default();
            for child in text.split_ascii_whitespace().filter_map(|word| word.parse().ok()) {
                let its_threads = threads(child).unwrap_or_default();
                found.extend(&its_threads);
                processes.push((child, its_threads));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| io::Error::new(error.kind(), format!("no process {pid} to count: {error}")))?;
    Ok(names
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}
