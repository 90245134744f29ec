//! Counting by `ptrace(2)`: a thread of ours stops every thread of the other process at each system call.
//!
//! ptrace belongs to the thread that attached, so all of it happens on that one. It has to leave no trace:
//! threads and processes that end are let go *before* they end (PTRACE_O_TRACEEXIT), because a tracer in the
//! parent's own process would otherwise take away the exit status; signals go through; and at the end each
//! thread is stopped once more and let go.

use std::collections::HashSet;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::{c_int, c_long, pid_t};

/// Also in libc, but only for glibc (Linux 5.3).
const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const SYSCALL_ENTRY: u8 = 1;
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// What we want to be told, beside system calls: everything that creates a thread or a process, and their
/// ends.
const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;

/// How long letting go may take. What has not stopped by then is let go by the end of the thread, which the
/// kernel sees to.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Ptrace {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ptrace {
    pub(super) fn attach(pid: u32) -> io::Result<Self> {
        let count = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (attached, answer) = channel();
        let (tracer_count, tracer_stop) = (Arc::clone(&count), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("proact-ptrace".into())
            .spawn(move || {
                Tracer {
                    threads: HashSet::new(),
                    count: tracer_count,
                }
                .work(pid, &attached, &tracer_stop);
            })?;
        let ptrace = Self {
            count,
            stop,
            thread: Some(thread),
        };
        match answer.recv() {
            Ok(outcome) => outcome.map(|()| ptrace),
            Err(_) => Err(io::Error::other("ptrace: the counting thread ended")),
        }
    }

    pub(super) fn read(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Ptrace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has let go of everything too.
            drop(thread.join());
        }
    }
}

struct Tracer {
    threads: HashSet<pid_t>,
    count: Arc<AtomicU64>,
}

impl Tracer {
    fn work(&mut self, pid: u32, attached: &Sender<io::Result<()>>, stop: &AtomicBool) {
        let outcome = self.seize_tree(pid);
        let failed = outcome.is_err();
        if attached.send(outcome).is_err() || failed {
            return;
        }
        let mut idle = 0_u32;
        while !stop.load(Ordering::Relaxed) && !self.threads.is_empty() {
            match next_event(None) {
                // Killed, and still to be waited for by its parent: it would hide the stops of all others
                // from us. The rest of the tree goes on uncounted.
                Some(Event { thread, stop: 0, .. }) if is_process(thread) => break,
                Some(event) => {
                    idle = 0;
                    self.handle(event, false);
                }
                None => {
                    // Busy at first, since under load the next stop is a microsecond away; a sleeping server
                    // costs nothing.
                    idle = idle.saturating_add(1);
                    if idle < 200 {
                        thread::yield_now()
                    } else {
                        thread::sleep(Duration::from_millis(1))
                    }
                }
            }
        }
        self.let_go();
    }

    /// Attaches to all threads; those that appear meanwhile come by themselves if their creator was attached,
    /// else in the next round.
    fn seize_tree(&mut self, pid: u32) -> io::Result<()> {
        loop {
            let mut news = false;
            for thread in super::threads_of_tree(pid)? {
                let thread = pid_t::try_from(thread).map_err(io::Error::other)?;
                if self.threads.contains(&thread) {
                    continue;
                }
                match ptrace(libc::PTRACE_SEIZE, thread, OPTIONS as usize) {
                    Ok(_) => {
                        news = true;
                        self.threads.insert(thread);
                        // It has to stop once to be told that its system calls matter.
                        drop(ptrace(libc::PTRACE_INTERRUPT, thread, 0));
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    // Already ours: its creator was attached when it was created.
                    Err(_) if is_traced_by_us(thread) => {
                        self.threads.insert(thread);
                    }
                    Err(error) => {
                        let why = "ptrace: not permitted (kernel.yama.ptrace_scope, or another debugger is attached)";
                        return Err(io::Error::new(error.kind(), format!("{why}: {error}")));
                    }
                }
            }
            if !news {
                return Ok(());
            }
        }
    }

    /// One stop: count it, and let the thread go on (or, `leaving`, let it go).
    fn handle(&mut self, event: Event, leaving: bool) {
        let Event { thread, stop, reason } = event;
        if stop == 0 {
            // It has ended without an exit stop (SIGKILL). A mere thread has no parent that waits for it:
            // bury it here.
            self.threads.remove(&thread);
            if !is_process(thread) {
                // SAFETY: a null status pointer is allowed.
                unsafe {
                    libc::waitpid(
                        thread,
                        ptr::null_mut(),
                        libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD,
                    )
                };
            }
            return;
        }
        self.threads.insert(thread);
        let signal = if stop == SYSCALL_STOP {
            if is_entry(thread) {
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            0
        } else if reason == libc::PTRACE_EVENT_EXIT {
            self.detach(thread, 0);
            return;
        } else if reason == libc::PTRACE_EVENT_STOP && stop != libc::SIGTRAP && !leaving {
            // A stop as by ^Z: stay stopped, and be told of SIGCONT.
            drop(ptrace(libc::PTRACE_LISTEN, thread, 0));
            return;
        } else if reason != 0 {
            0
        } else {
            stop
        };
        if leaving {
            self.detach(thread, signal);
        } else {
            drop(ptrace(libc::PTRACE_SYSCALL, thread, signal as usize));
        }
    }

    fn detach(&mut self, thread: pid_t, signal: c_int) {
        drop(ptrace(libc::PTRACE_DETACH, thread, signal as usize));
        self.threads.remove(&thread);
    }

    /// Stops every thread once more: only a stopped one can be let go.
    fn let_go(&mut self) {
        for &thread in &self.threads {
            drop(ptrace(libc::PTRACE_INTERRUPT, thread, 0));
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.threads.is_empty() && Instant::now() < deadline {
            for thread in self.threads.clone() {
                if let Some(event) = next_event(Some(thread)) {
                    self.handle(event, true);
                }
            }
            thread::yield_now();
        }
    }
}

/// A stop (`stop` is its signal, `reason` the ptrace event), or the end of a thread (`stop` is 0).
struct Event {
    thread: pid_t,
    stop: c_int,
    reason: c_int,
}

/// The next stop or end of `of`, or else of any thread that *this* thread traces; children of other threads
/// of ours are left alone (__WNOTHREAD).
fn next_event(of: Option<pid_t>) -> Option<Event> {
    let (kind, id) = of.map_or((libc::P_ALL, 0), |thread| (libc::P_PID, thread.unsigned_abs()));
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let look = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // Look first: the end of a process belongs to its parent, who is perhaps ourselves, so it must stay to be
    // waited for. SAFETY: `info` is valid and writable for the call.
    let found = unsafe { libc::waitid(kind, id, &mut info, look | libc::WNOWAIT) };
    // SAFETY: waitid fills in, or leaves zero, the field that si_pid reads.
    let thread = unsafe { info.si_pid() };
    if found != 0 {
        // No longer ours, or no longer there: that is an end too.
        return of.map(|thread| Event {
            thread,
            stop: 0,
            reason: 0,
        });
    }
    if thread == 0 {
        return None;
    }
    if matches!(
        info.si_code,
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED
    ) {
        return Some(Event {
            thread,
            stop: 0,
            reason: 0,
        });
    }
    let mut status = 0;
    // SAFETY: `status` is valid and writable for the call.
    let got = unsafe {
        libc::waitpid(
            thread,
            &mut status,
            libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD,
        )
    };
    if got != thread || !libc::WIFSTOPPED(status) {
        return None;
    }
    Some(Event {
        thread,
        stop: libc::WSTOPSIG(status),
        reason: status >> 16,
    })
}

/// Whether a thread that has stopped at a system call is on its way in. (It may also be on its way out, also
/// first of all.)
fn is_entry(thread: pid_t) -> bool {
    // `struct ptrace_syscall_info`, of which the first byte says what kind of stop it is.
    let mut info = [0_u8; 128];
    // SAFETY: the buffer is writable and of the size that is passed in place of the address.
    let got = unsafe {
        libc::ptrace(
            PTRACE_GET_SYSCALL_INFO as _,
            thread,
            info.len() as *mut libc::c_void,
            info.as_mut_ptr(),
        )
    };
    got > 0 && info[0] == SYSCALL_ENTRY
}

/// Whether this is the id of a process, not of one of its later threads. True as well when it is no longer
/// there.
fn is_process(thread: pid_t) -> bool {
    status_field(thread, "Tgid:").is_none_or(|process| process == thread)
}

fn is_traced_by_us(thread: pid_t) -> bool {
    // SAFETY: gettid takes no arguments.
    let us = unsafe { libc::gettid() };
    status_field(thread, "TracerPid:") == Some(us)
}

/// A number in `/proc/THREAD/status`.
fn status_field(thread: pid_t, name: &str) -> Option<pid_t> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

/// A ptrace request without an address. Every request used here takes a number, not a pointer, as its data.
fn ptrace(request: libc::c_uint, thread: pid_t, data: usize) -> io::Result<c_long> {
    // SAFETY: the requests that are passed here read and write no memory of ours.
    let answer = unsafe { libc::ptrace(request as _, thread, ptr::null_mut::<libc::c_void>(), data) };
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}
