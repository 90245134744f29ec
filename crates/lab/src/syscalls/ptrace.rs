//! Counts by `ptrace(2)`: a thread of this process stops every thread of the other process at each system call.
//!
//! Only the thread that attached may make ptrace requests, so that thread does everything. It must not change what
//! the other process does or what its parent sees. So it detaches from threads and processes *before* they end
//! (PTRACE_O_TRACEEXIT), because otherwise a tracer in the parent's process would take the exit status away. It
//! passes signals on. At the end it stops each thread once more and detaches.

use std::collections::HashSet;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::{c_int, c_long, pid_t};

/// Since Linux 5.3. libc defines it only for glibc.
const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const SYSCALL_ENTRY: u8 = 1;
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// What stops a thread beside system calls: creating a thread or a process, exec, and the end of a thread.
const OPTIONS: c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;

/// How long detaching may take. The kernel detaches from threads that have not stopped by then when the tracing
/// thread ends.
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
            // A panic has ended the thread, which detaches from everything as well.
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
                // A process was killed and its parent has not waited for it. It would hide the stops of all other
                // threads from `waitid`, so the rest of the tree goes on uncounted.
                Some(Event { thread, stop: 0, .. }) if is_process(thread) => break,
                Some(event) => {
                    idle = 0;
                    self.handle(event, false);
                }
                None => {
                    // Spin at first, because under load the next stop is a microsecond away. Then sleep, so that a
                    // sleeping server costs nothing.
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

    /// Attaches to all threads. Threads that appear meanwhile are traced automatically if their creator was; the next
    /// round finds the others.
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
                        // The thread has to stop once before it can be told to stop at system calls.
                        drop(ptrace(libc::PTRACE_INTERRUPT, thread, 0));
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    // The thread is traced already, because its creator was when it created the thread.
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

    /// Handles one stop: counts it and lets the thread go on (or, if `leaving`, detaches from it).
    fn handle(&mut self, event: Event, leaving: bool) {
        let Event { thread, stop, reason } = event;
        if stop == 0 {
            // The thread has ended without an exit stop (SIGKILL). No parent waits for a thread that is not a
            // process, so collect it here.
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
            // A group stop, as by ^Z: leave the thread stopped, and get an event at SIGCONT.
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

    /// Stops every thread once more, because ptrace can only detach from a stopped thread.
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

/// A stop (`stop` is the signal, `reason` the ptrace event), or the end of a thread (`stop` is 0).
struct Event {
    thread: pid_t,
    stop: c_int,
    reason: c_int,
}

/// The next stop or end of `of`, or, for `None`, of any thread that *this* thread traces. Ignores children of other
/// threads of this process (__WNOTHREAD).
fn next_event(of: Option<pid_t>) -> Option<Event> {
    let (kind, id) = of.map_or((libc::P_ALL, 0), |thread| (libc::P_PID, thread.unsigned_abs()));
    // SAFETY: all zeroes is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let look = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // Look without collecting (WNOWAIT): the parent of a process, perhaps this process, must still be able to wait
    // for its end. SAFETY: `info` is valid and writable for the call.
    let found = unsafe { libc::waitid(kind, id, &mut info, look | libc::WNOWAIT) };
    // SAFETY: waitid has filled the field that si_pid reads, or left it zero.
    let thread = unsafe { info.si_pid() };
    if found != 0 {
        // The thread has ended or is no longer traced. Both count as its end.
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

/// Whether a thread that has stopped at a system call is entering it. The first stop, too, may be at the return.
fn is_entry(thread: pid_t) -> bool {
    // `struct ptrace_syscall_info`. Its first byte is the kind of stop.
    let mut info = [0_u8; 128];
    // SAFETY: the buffer is writable and has the size that is passed in place of the address.
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

/// Whether this is the id of a process and not of one of its other threads. Also true if the thread no longer exists.
fn is_process(thread: pid_t) -> bool {
    status_field(thread, "Tgid:").is_none_or(|process| process == thread)
}

fn is_traced_by_us(thread: pid_t) -> bool {
    // SAFETY: gettid takes no arguments.
    let us = unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t };
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

/// The type of a request, which each C library chooses.
#[cfg(target_env = "musl")]
type Request = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// Makes a ptrace request without an address. Every request in this file takes a number as its data, not a pointer.
fn ptrace(request: Request, thread: pid_t, data: usize) -> io::Result<c_long> {
    // SAFETY: these requests read and write no memory of this process.
    let answer = unsafe { libc::ptrace(request as _, thread, ptr::null_mut::<libc::c_void>(), data) };
    if answer == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}
