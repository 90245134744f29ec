//! Counts the system calls of another process, with all its threads and all its children.
//!
//! There are two methods, tried in this order:
//!
//! - **perf**: a counter on the tracepoint `raw_syscalls:sys_enter` (perf_event_open(2)). The kernel counts, and the
//!   process does not stop. The cost is about a tenth of a microsecond per call, on the whole machine while the
//!   counter is on, so the counted server batches its work as it would without the counter. Needs tracefs mounted and
//!   CAP_PERFMON, or `kernel.perf_event_paranoid` -1.
//! - **ptrace**: the process stops twice for every call (ptrace(2)). The count is exact, but the process is *slowed
//!   down tenfold and more*. Under load its turns become longer and its batches larger, so the calls per message come
//!   out lower than they are without the counter. Needs the permissions of a debugger (`kernel.yama.ptrace_scope`: at
//!   0 and 1 a process may trace its child).
//!
//! Both methods slow the process down, so count in a separate pass, never in the pass that measures speed.

mod perf;
mod ptrace;

use std::fs;
use std::io;

enum Counter {
    Perf(perf::Perf),
    Ptrace(ptrace::Ptrace),
}

/// Counts the system calls of another process from [`attach`](Self::attach) until it is dropped.
///
/// While the method is "ptrace", no thread of *this* process may wait for the counted process (`waitpid`, also with
/// WNOHANG, also Python's `Popen.poll`), because that would take the stops away from the counter. Drop the counter
/// first.
pub struct SyscallCounter(Counter);

impl SyscallCounter {
    /// Counts the calls of process `pid`, of its threads and child processes, and of all threads and processes that
    /// these will create. Uses perf if that is permitted, else ptrace.
    ///
    /// # Errors
    /// If neither method works; the message has the reasons of both. `NotFound` if there is no such process.
    pub fn attach(pid: u32) -> io::Result<Self> {
        let perf = match Self::attach_perf(pid) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => error,
            answer => return answer,
        };
        Self::attach_ptrace(pid).map_err(|ptrace| io::Error::new(ptrace.kind(), format!("{perf}; {ptrace}")))
    }

    /// Like [`attach`](Self::attach), but only by perf.
    ///
    /// # Errors
    /// No tracefs, no permission, no such process.
    pub fn attach_perf(pid: u32) -> io::Result<Self> {
        perf::Perf::attach(pid).map(Counter::Perf).map(Self)
    }

    /// Like [`attach`](Self::attach), but only by ptrace.
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

/// The threads of `pid` and of all its descendants, as `/proc` lists them now, in ascending order.
fn threads_of_tree(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = threads(pid)?;
    let mut processes: Vec<(u32, Vec<u32>)> = vec![(pid, found.clone())];
    while let Some((process, its_threads)) = processes.pop() {
        for thread in its_threads {
            let path = format!("/proc/{process}/task/{thread}/children");
            // The file is missing without CONFIG_PROC_CHILDREN, and if the thread has just ended: then it has no
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
