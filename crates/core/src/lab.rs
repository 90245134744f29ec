//! The laboratory's native parts, as Python sees them: the load generator, the bare servers, the system call counter,
//! the probe.

use std::net::ToSocketAddrs;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::py::errno::io_error;
use proact_lab::bare::{Echo, Web};
use proact_lab::probe::{self, CallTimes};
use proact_lab::{Exchange, LoadError, LoadReport, LoadSpec, SoFar, Target, bare, load};
use pyo3::exceptions::{PyConnectionError, PyOSError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How often a running load reports progress and looks for signals.
const TICK: Duration = Duration::from_millis(100);

fn load_error(error: LoadError) -> PyErr {
    let message = error.to_string();
    match error {
        LoadError::Invalid(_) => PyValueError::new_err(message),
        LoadError::Refused(_) => PyErr::new::<pyo3::exceptions::PyConnectionRefusedError, _>(message),
        LoadError::Reset { .. } | LoadError::Closed { .. } => PyConnectionError::new_err(message),
        LoadError::ConnectTimeout { .. } | LoadError::Stall { .. } => PyTimeoutError::new_err(message),
        LoadError::TooManyFiles { .. } | LoadError::NoPorts { .. } | LoadError::Io { .. } => {
            PyOSError::new_err(message)
        }
        LoadError::Mismatch { .. } | LoadError::Stopped => PyRuntimeError::new_err(message),
    }
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{name} must be 0 or more seconds")))
}

fn latency_dict<'py>(py: Python<'py>, latency: &load::Latency) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("p50", latency.p50)?;
    dict.set_item("p90", latency.p90)?;
    dict.set_item("p99", latency.p99)?;
    dict.set_item("p99.9", latency.p999)?;
    dict.set_item("p99.99", latency.p9999)?;
    dict.set_item("max", latency.max)?;
    dict.set_item("mean", latency.mean)?;
    Ok(dict)
}

fn report_dict<'py>(py: Python<'py>, report: &LoadReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("messages", report.messages)?;
    dict.set_item("bytes", report.bytes)?;
    dict.set_item("seconds", report.seconds)?;
    dict.set_item("cpu_seconds", report.cpu_seconds)?;
    dict.set_item("connect_seconds", report.connect_seconds)?;
    dict.set_item("unsent", report.unsent)?;
    dict.set_item("latency_ns", latency_dict(py, &report.latency)?)?;
    dict.set_item("histogram", &report.histogram)?;
    if let Some(lazy) = report.lazy {
        dict.set_item("lazy", lazy)?;
    }
    if let Some(slow) = &report.slow {
        let apart = PyDict::new(py);
        apart.set_item("messages", slow.messages)?;
        apart.set_item("latency_ns", latency_dict(py, &slow.latency)?)?;
        apart.set_item("histogram", &slow.histogram)?;
        dict.set_item("slow", apart)?;
    }
    Ok(dict)
}

fn target(transport: &str, host: &str, port: u16) -> PyResult<Target> {
    let make = match transport {
        "unix" => return Ok(Target::Unix(host.into())),
        "tcp" => Target::Tcp,
        "udp" => Target::Udp,
        _ => {
            return Err(PyValueError::new_err(format!(
                "no transport is named {transport:?}"
            )));
        }
    };
    (host, port)
        .to_socket_addrs()?
        .next()
        .map(make)
        .ok_or_else(|| PyOSError::new_err(format!("no address for {host:?}")))
}

/// Runs a load in a thread of its own; this one reports progress and looks for signals.
fn run_load(py: Python<'_>, spec: &LoadSpec, progress: Option<&Bound<'_, PyAny>>) -> PyResult<LoadReport> {
    let (messages, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let caller = std::thread::current();
    let so_far = |figure: fn(&SoFar) -> &AtomicU64| {
        spec.so_far
            .as_ref()
            .map_or(0, |at| figure(at).load(Ordering::Relaxed))
    };
    std::thread::scope(|scope| {
        let runner = std::thread::Builder::new()
            .name("proact-load".into())
            .spawn_scoped(scope, || {
                let outcome = load::run(spec, &messages, &stop);
                caller.unpark();
                outcome
            })?;
        let mut interrupted = Ok(());
        while !runner.is_finished() && interrupted.is_ok() {
            py.detach(|| std::thread::park_timeout(TICK));
            interrupted = py.check_signals();
            if let (Ok(()), Some(progress)) = (&interrupted, progress) {
                interrupted = progress
                    .call1((
                        messages.load(Ordering::Relaxed),
                        so_far(|at| &at.p50),
                        so_far(|at| &at.p99),
                    ))
                    .map(drop);
            }
        }
        stop.store(interrupted.is_err(), Ordering::Relaxed);
        let result = py.detach(|| runner.join());
        interrupted?;
        match result {
            Ok(result) => result.map_err(load_error),
            Err(_) => Err(PyRuntimeError::new_err("the load generator's thread panicked")),
        }
    })
}

/// Loads a server with echoes: `connections` at once on one thread, each with one message of `size` bytes under way, every
/// byte of every echo verified. Times in seconds; latencies in nanoseconds, their `histogram` a list of (upper end of a
/// step, messages in it), ascending, three significant digits. `progress` is called with the messages so far, and the
/// median and the 99th percentile of latency in the window so far (ns; 0 before it), about ten times a second. `transport`: "tcp", "udp", or "unix", whose `host` is the path and whose `port`
/// means nothing. `churn`: each message has a connection of its own. `idle`: so many connections beside the others say
/// nothing.
///
/// `exchange`: a request and its only right response, in place of an echo of `size` bytes. `rate`: messages per second
/// over all connections, at fixed times (open loop): latencies count from when a message was intended, and `unsent` of
/// the result are those that no connection was free to send. `slow`: (connections, request, response), so many more
/// connections with an exchange of their own, told apart as `slow` in the result. `lazy`: (connections, bytes per second),
/// so many more that send echoes far faster than they read, at so many bytes per second each; `lazy` of the result has the
/// bytes that they sent and read. `tls`: TLS on all connections, by the machine's OpenSSL; certificates are not verified.
///
/// Raises ValueError (settings), ConnectionError (refused, reset, closed), TimeoutError (nothing moves for
/// `stall_timeout`), OSError (files, ports), RuntimeError (an answer that is not the right one).
#[pyfunction]
#[pyo3(signature = (host, port, *, connections, size, warmup, duration, idle = 0, stall_timeout = 5.0, progress = None, transport = "tcp", churn = false, rate = None, exchange = None, slow = None, lazy = None, tls = false))]
#[expect(clippy::too_many_arguments, reason = "keywords of a Python function")]
pub fn echo_load<'py>(
    py: Python<'py>,
    host: &str,
    port: u16,
    connections: usize,
    size: usize,
    warmup: f64,
    duration: f64,
    idle: usize,
    stall_timeout: f64,
    progress: Option<Bound<'py, PyAny>>,
    transport: &str,
    churn: bool,
    rate: Option<f64>,
    exchange: Option<(Vec<u8>, Vec<u8>)>,
    slow: Option<(usize, Vec<u8>, Vec<u8>)>,
    lazy: Option<(usize, f64)>,
    tls: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let target = target(transport, host, port)?;
    let pair = |request: Vec<u8>, response: Vec<u8>| Exchange {
        request: request.into(),
        response: response.into(),
    };
    let spec = LoadSpec {
        rate,
        exchange: exchange.map(|(request, response)| pair(request, response)),
        slow: slow.map(|(connections, request, response)| (connections, pair(request, response))),
        connections,
        size,
        idle,
        warmup: seconds("warmup", warmup)?,
        duration: seconds("duration", duration)?,
        stall_timeout: seconds("stall_timeout", stall_timeout)?,
        churn,
        lazy,
        tls,
        so_far: progress.as_ref().map(|_| Arc::default()),
        ..LoadSpec::new(target)
    };
    report_dict(py, &run_load(py, &spec, progress.as_ref())?)
}

/// Serves without Python on a listening socket, which it takes over, until the process is killed.
/// `model`: "epoll", "io_uring" or "threads"; `workload`: "echo" or "web".
#[pyfunction]
#[pyo3(signature = (model, listener_fd, workload = "echo"))]
pub fn bare_server(py: Python<'_>, model: &str, listener_fd: RawFd, workload: &str) -> PyResult<()> {
    let serve = match (model, workload) {
        ("epoll", "echo") => bare::serve_epoll::<Echo>,
        ("epoll", "web") => bare::serve_epoll::<Web>,
        ("io_uring", "echo") => bare::serve_uring::<Echo>,
        ("io_uring", "web") => bare::serve_uring::<Web>,
        ("threads", "echo") => bare::serve_threads::<Echo>,
        ("threads", "web") => bare::serve_threads::<Web>,
        _ => {
            return Err(PyValueError::new_err(format!(
                "no bare server of {workload:?} is named {model:?}"
            )));
        }
    };
    // SAFETY: fcntl only looks the fd up.
    if unsafe { libc::fcntl(listener_fd, libc::F_GETFD) } < 0 {
        return Err(io_error(std::io::Error::last_os_error()));
    }
    // SAFETY: an open fd that the caller hands over.
    let listener = unsafe { OwnedFd::from_raw_fd(listener_fd) };
    let stop = AtomicBool::new(false);
    py.detach(|| serve(listener, &stop)).map_err(io_error)?;
    Ok(())
}

/// Counts the system calls of a process and its threads from now on.
#[pyclass(frozen, module = "proact._core")]
pub struct SyscallCounter(std::sync::Mutex<Option<proact_lab::SyscallCounter>>);

impl SyscallCounter {
    fn with<R>(&self, body: impl FnOnce(&proact_lab::SyscallCounter) -> R) -> PyResult<R> {
        let counter = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        counter
            .as_ref()
            .map(body)
            .ok_or_else(|| PyValueError::new_err("the counter is closed"))
    }
}

#[pymethods]
impl SyscallCounter {
    #[new]
    fn new(py: Python<'_>, pid: u32) -> PyResult<SyscallCounter> {
        let counter = py
            .detach(|| proact_lab::SyscallCounter::attach(pid))
            .map_err(io_error)?;
        Ok(SyscallCounter(std::sync::Mutex::new(Some(counter))))
    }

    /// System calls counted so far.
    fn read(&self) -> PyResult<u64> {
        self.with(proact_lab::SyscallCounter::read)
    }

    /// How they are counted: "perf" (in the kernel) or "ptrace" (which slows the process).
    #[getter]
    fn method(&self) -> PyResult<&'static str> {
        self.with(proact_lab::SyscallCounter::method)
    }

    fn close(&self, py: Python<'_>) {
        let counter = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        py.detach(|| drop(counter));
    }
}

/// Accounts every I/O call of this process from now on into the table that `fd` is a part of (`Probe.fileno()` of the
/// measuring process). Once a process, before it has other threads. Raises OSError.
#[pyfunction]
pub fn install_probe(fd: RawFd) -> PyResult<()> {
    // SAFETY: F_DUPFD_CLOEXEC only looks the fd up.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io_error(std::io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made it for us.
    probe::install(unsafe { OwnedFd::from_raw_fd(copy) }).map_err(io_error)
}

/// A traced call as Python has it: see `Probe::events`.
type EventTuple = (u64, &'static str, &'static str, i64, u64, u64, u64, u64, i64, i64);

/// The measuring process's side of a probe: the table of another process's I/O calls.
#[pyclass(frozen, module = "proact._core")]
pub struct Probe(probe::Reader);

#[pymethods]
impl Probe {
    /// Makes the table. Raises OSError.
    #[new]
    fn new() -> PyResult<Probe> {
        probe::Reader::new().map(Probe).map_err(io_error)
    }

    /// The fd to hand to the process that calls `install_probe`.
    fn fileno(&self) -> RawFd {
        self.0.fd()
    }

    /// The totals now, what is under way included: `at` (ns of the monotonic clock), `lost` (threads that had no room),
    /// `overhead` (ns that the probe adds to a call; 0 before it is installed), and `threads`, a list of
    /// (slot, thread id, ring operations, {call: (role, count, wall, cpu, run queue, bytes, empty)}), times in ns.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = py.detach(|| self.0.snapshot());
        let mut threads = Vec::with_capacity(snapshot.threads.len());
        for each in &snapshot.threads {
            let calls = PyDict::new(py);
            for (name, role, times) in each.calls() {
                let CallTimes {
                    count,
                    wall,
                    cpu,
                    run_queue,
                    bytes,
                    empty,
                } = times;
                calls.set_item(name, (role.name(), count, wall, cpu, run_queue, bytes, empty))?;
            }
            threads.push((each.slot, each.thread, each.ring_ops, calls));
        }
        let dict = PyDict::new(py);
        dict.set_item("at", snapshot.at)?;
        dict.set_item("lost", snapshot.lost)?;
        dict.set_item("overhead", snapshot.overhead)?;
        dict.set_item("threads", threads)?;
        Ok(dict)
    }

    /// Begins a trace of single calls, without those of the last, or ends it; returns how many calls the one until now
    /// had no room for.
    fn trace(&self, on: bool) -> usize {
        self.0.trace(on)
    }

    /// The calls of the trace that have returned, in that order: (thread id, call, role, fd, start, end, cpu, run queue,
    /// result, errno), times in ns of the monotonic clock; errno is 0 of those that have not failed.
    fn events(&self) -> Vec<EventTuple> {
        let events = self.0.events().into_iter();
        events
            .map(|each| {
                let probe::Event {
                    thread,
                    call,
                    role,
                    fd,
                    start,
                    end,
                    cpu,
                    run_queue,
                    result,
                    errno,
                } = each;
                let role = role.name();
                (thread, call, role, fd, start, end, cpu, run_queue, result, errno)
            })
            .collect()
    }
}
