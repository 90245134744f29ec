//! The load: many connections (TCP, Unix or UDP) on one thread. It verifies every byte.
//!
//! Each connection sends one message, reads its echo (or the answer of an [`Exchange`]) back, checks it byte by byte,
//! notes the round trip and sends the next message. In a *closed loop* the server sets the pace: the latencies are of
//! a server that is as busy as it can be with so many clients, and say nothing about a given arrival rate
//! ("coordinated omission": a slow answer also delays the next question). In an *open loop* (`rate`) messages fall
//! due at fixed times, whatever the server does, and latencies count from those times.
//!
//! With `churn` each message has its own connection, and a round trip includes connecting.
//!
//! The files: `spec` has the settings, the report and the errors; `connect` opens connections; `payload` has the
//! messages; `connection` has the steps of one connection, `tls` its TLS; `lazy` has the clients that read slowly. This file has the turn and the clock: the warm-up, the
//! window, and the drain, in which the last answers arrive, so that the server sees its connections end in an orderly
//! way.
//!
//! The load uses level-triggered epoll, with one `recv` and one `send` per message. A bare server never needs more on
//! the other side, and `cpu_seconds` tells when the load was the limit anyway.

mod connect;
mod connection;
mod lazy;
mod payload;
mod spec;
mod tls;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpu;
use crate::sockets::Epoll;
use connect::Opener;
use connection::{Connection, Step};
use lazy::Lazy;
use payload::{Payload, Script};

pub use spec::{
    Exchange, Latency, LoadError, LoadReport, LoadSpec, MAX_DATAGRAM, MAX_RATE, MAX_SIZE, SlowReport, SoFar,
    Target,
};

/// How often a waiting load checks the clock and `stop`.
const TICK_MS: libc::c_int = 10;

/// How often the slow readers have their turn.
const LAZY_TURN: Duration = Duration::from_millis(5);

/// The maximum size of one `recv`. All connections share one buffer, so that it stays in the cache.
const BUFFER: usize = 256 * 1024;

/// The longest latency that is recorded: ten minutes. A longer one is recorded as this.
const LONGEST_NS: u64 = 600_000_000_000;

/// Runs one load on the calling thread. It ends after `connect_timeout + warmup + duration + stall_timeout` at the
/// latest, or soon after `stop` is set (with the results of the window so far). `progress` counts verified messages,
/// including those of the warm-up.
///
/// # Errors
/// Any [`LoadError`]: the first connection that fails ends the run.
pub fn run(spec: &LoadSpec, progress: &AtomicU64, stop: &AtomicBool) -> Result<LoadReport, LoadError> {
    spec.check()?;
    let began = Instant::now();
    let epoll = Epoll::new(1024).map_err(LoadError::io("epoll_create1"))?;
    let (connections, lazy) = connected(spec, &epoll, stop)?;
    let connect_seconds = began.elapsed().as_secs_f64();
    let now = Instant::now();
    let mut load = Load {
        spec,
        opener: Opener::new(&spec.target).map_err(LoadError::io("the server's address"))?,
        progress,
        epoll,
        script: match &spec.exchange {
            Some(exchange) => Script::Fixed(exchange.clone()),
            None => Script::Echo(Payload::new(spec.size)),
        },
        slow_script: spec
            .slow
            .as_ref()
            .map(|(_, exchange)| Script::Fixed(exchange.clone())),
        connections,
        lazy,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        busy: 0,
        schedule: spec.rate.map(|rate| Schedule::new(rate, spec.connections, now)),
        total: 0,
        phase: Phase::Warmup,
        histogram: histogram()?,
        slow_histogram: histogram()?,
        swept: now,
        turned: now,
    };
    let mut report = load.drive(stop)?;
    report.connect_seconds = connect_seconds;
    Ok(report)
}

/// Opens all connections. Those that send and the idle ones are watched; a token is the place in the list.
fn connected(
    spec: &LoadSpec,
    epoll: &Epoll,
    stop: &AtomicBool,
) -> Result<(Vec<Connection>, Vec<Lazy>), LoadError> {
    let deadline = Instant::now() + spec.connect_timeout;
    let library = spec.tls.then(tls::Library::load).transpose();
    let library = library.map_err(LoadError::io("TLS"))?;
    let sockets = connect::connect_all(spec, stop)?;
    let now = Instant::now();
    let (mut connections, mut lazy) = (Vec::with_capacity(sockets.len()), Vec::new());
    for (id, socket) in sockets.into_iter().enumerate() {
        if let Some((count, reads)) = spec.lazy
            && (spec.talking()..spec.talking() + count).contains(&id)
        {
            lazy.push(Lazy::new(socket, id, reads, now)?);
            continue;
        }
        let session = match &library {
            Some(library) => Some(tls::Session::open(library, socket.as_raw_fd(), deadline, stop)?),
            None => None,
        };
        epoll
            .add(socket.as_raw_fd(), libc::EPOLLIN, connections.len() as u64)
            .map_err(LoadError::io("epoll_ctl"))?;
        connections.push(Connection::new(socket, session, id, now));
    }
    Ok((connections, lazy))
}

fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .map_err(|_| LoadError::Invalid("the histogram's bounds are wrong"))
}

/// The times at which messages fall due in an open loop, and the connections that can send them.
struct Schedule {
    from: Instant,
    rate: f64,
    /// The number of the message that falls due next.
    next: u64,
    /// The connections without a message. The first one has been free for longest.
    free: VecDeque<usize>,
}

impl Schedule {
    fn new(rate: f64, connections: usize, from: Instant) -> Self {
        Self {
            from,
            rate,
            next: 0,
            free: (0..connections).collect(),
        }
    }

    /// The time at which the next message falls due.
    fn due(&self) -> Instant {
        self.from + Duration::from_secs_f64(self.next as f64 / self.rate)
    }

    /// How many messages have fallen due and have not been sent. A message that falls due right now is not late.
    fn unsent(&self, now: Instant) -> u64 {
        let fallen_due = ((now - self.from).as_secs_f64() * self.rate) as u64;
        fallen_due.saturating_sub(self.next)
    }
}

/// The phase of the run.
enum Phase {
    Warmup,
    /// The start of the window, and the thread's CPU time at the start.
    Window(Instant, Duration),
    /// The load sends no new messages. It still waits for the answers to the others and verifies them.
    Drain(Box<LoadReport>),
}

struct Load<'a> {
    spec: &'a LoadSpec,
    opener: Opener,
    progress: &'a AtomicU64,
    epoll: Epoll,
    script: Script,
    slow_script: Option<Script>,
    connections: Vec<Connection>,
    lazy: Vec<Lazy>,
    buffer: Box<[u8]>,
    /// How many connections have an unanswered message.
    busy: usize,
    schedule: Option<Schedule>,
    /// How many messages have been verified, including warm-up and drain.
    total: u64,
    phase: Phase,
    histogram: Histogram<u64>,
    slow_histogram: Histogram<u64>,
    /// When stalled connections were last looked for.
    swept: Instant,
    /// When the slow readers last had their turn.
    turned: Instant,
}

impl Load<'_> {
    fn drive(&mut self, stop: &AtomicBool) -> Result<LoadReport, LoadError> {
        let opens = Instant::now() + self.spec.warmup;
        let mut closes = opens + self.spec.duration;
        let closed_loop = if self.schedule.is_some() {
            self.spec.connections
        } else {
            0
        };
        for id in closed_loop..self.spec.talking() {
            self.begin(id, Instant::now())?;
        }
        loop {
            let ready = self.wait().map_err(LoadError::io("epoll_wait"))?;
            let now = Instant::now();
            let stopped = stop.load(Ordering::Relaxed);
            match &mut self.phase {
                Phase::Warmup if stopped => return Err(LoadError::Stopped),
                Phase::Warmup if now >= opens => {
                    self.phase = Phase::Window(now, cpu::thread_time());
                    // The window has its full length even if the last turn of the warm-up was late.
                    closes = now + self.spec.duration;
                }
                Phase::Window(since, cpu_then) if stopped || now >= closes => {
                    let (since, cpu_then) = (*since, *cpu_then);
                    closes = now;
                    let report = self.report(now, now - since, cpu::thread_time() - cpu_then);
                    self.phase = Phase::Drain(Box::new(report));
                }
                Phase::Drain(report) => {
                    let late = now >= closes + self.spec.stall_timeout;
                    if self.busy == 0 || stopped || late {
                        let report = std::mem::take(&mut **report);
                        if late && !stopped {
                            self.find_stalled(now)?;
                        }
                        return Ok(report);
                    }
                }
                _ => {}
            }
            for index in 0..ready {
                let (token, events) = self.epoll.event(index);
                self.step(token as usize, events, now)?;
            }
            self.send_due()?;
            if !self.lazy.is_empty() && now - self.turned >= LAZY_TURN {
                self.turned = now;
                self.lazy_turn(now)?;
            }
            self.progress.store(self.total, Ordering::Relaxed);
            if now - self.swept >= (self.spec.stall_timeout / 8).min(Duration::from_millis(250)) {
                self.swept = now;
                self.tell();
                self.find_stalled(now)?;
            }
        }
    }

    /// Lets the slow readers send and read what is due.
    fn lazy_turn(&mut self, now: Instant) -> Result<(), LoadError> {
        let Script::Echo(payload) = &self.script else {
            return Ok(()); // `LoadSpec::check` refuses it
        };
        for each in &mut self.lazy {
            each.turn(payload, now, &mut self.buffer)?;
        }
        Ok(())
    }

    /// Waits for events, for the next message that falls due, or for a tick.
    fn wait(&mut self) -> std::io::Result<usize> {
        match &self.schedule {
            Some(schedule) if !schedule.free.is_empty() && !matches!(self.phase, Phase::Drain(_)) => {
                let left = schedule.due().saturating_duration_since(Instant::now());
                self.epoll
                    .wait_precisely(left.min(Duration::from_millis(TICK_MS.unsigned_abs().into())))
            }
            _ => self.epoll.wait(TICK_MS),
        }
    }

    /// In an open loop, sends the messages that have fallen due while connections are free.
    fn send_due(&mut self) -> Result<(), LoadError> {
        if matches!(self.phase, Phase::Drain(_)) {
            return Ok(());
        }
        while let Some(schedule) = &mut self.schedule {
            let due = schedule.due();
            if due > Instant::now() {
                break;
            }
            let Some(id) = schedule.free.pop_front() else {
                break;
            };
            schedule.next += 1;
            self.begin(id, due)?;
        }
        Ok(())
    }

    /// Sends the first part of the current message, usually all of it. Its latency counts from `intended`.
    fn begin(&mut self, id: usize, intended: Instant) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        connection.began = intended;
        connection.moved = Instant::now();
        connection.busy = true;
        self.busy += 1;
        if self.spec.churn && self.connections[id].message > 0 {
            self.reopen(id)?;
        }
        let step = self.send(id)?;
        self.set_writing(id, step != Step::Complete)
    }

    /// Makes one `send` of the rest of the connection's message.
    fn send(&mut self, id: usize) -> Result<Step, LoadError> {
        let script = script(&self.script, self.slow_script.as_ref(), self.spec, id);
        self.connections[id].send(script)
    }

    /// Closes the connection and opens another in its place. Bytes that can't be sent before the connection is
    /// established wait for EPOLLOUT, as after any other short `send`.
    fn reopen(&mut self, id: usize) -> Result<(), LoadError> {
        let wanted = self.spec.connections;
        let (socket, _) = self
            .opener
            .open()
            .map_err(|error| connect::failure(error, self.spec, wanted, wanted))?;
        let connection = &mut self.connections[id];
        connection.socket = socket;
        connection.writing = false;
        self.epoll
            .add(connection.fd(), libc::EPOLLIN, id as u64)
            .map_err(LoadError::io("epoll_ctl"))
    }

    /// Registers or drops interest in writing, if that changes anything.
    fn set_writing(&mut self, id: usize, writing: bool) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        if connection.writing == writing {
            return Ok(());
        }
        connection.writing = writing;
        let interest = if writing {
            libc::EPOLLIN | libc::EPOLLOUT
        } else {
            libc::EPOLLIN
        };
        self.epoll
            .modify(connection.fd(), interest, id as u64)
            .map_err(LoadError::io("epoll_ctl"))
    }

    /// Handles one event: at most one `recv` and one `send` of this message, and the first `send` of the next.
    fn step(&mut self, id: usize, events: libc::c_int, now: Instant) -> Result<(), LoadError> {
        let mut received = Step::Blocked;
        if events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            let script = script(&self.script, self.slow_script.as_ref(), self.spec, id);
            received = self.connections[id].receive(script, &mut self.buffer)?;
            if received != Step::Blocked {
                self.connections[id].moved = now;
            }
        }
        if received == Step::Complete {
            return self.complete(id);
        }
        if self.connections[id].writing && events & libc::EPOLLOUT != 0 {
            let step = self.send(id)?;
            if step != Step::Blocked {
                self.connections[id].moved = now;
            }
            if step == Step::Complete {
                self.set_writing(id, false)?;
            }
        }
        Ok(())
    }

    /// Handles a verified answer: notes it, and sends the next message unless a schedule decides when.
    fn complete(&mut self, id: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        self.total += 1;
        self.busy -= 1;
        connection.busy = false;
        let slow = id >= self.spec.connections;
        if let Phase::Window(..) = self.phase {
            let nanos = u64::try_from(connection.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let histogram = if slow {
                &mut self.slow_histogram
            } else {
                &mut self.histogram
            };
            histogram.saturating_record(nanos);
        }
        connection.next();
        if let Phase::Drain(_) = self.phase {
            return self.set_writing(id, false);
        }
        match &mut self.schedule {
            Some(schedule) if !slow => {
                schedule.free.push_back(id);
                self.set_writing(id, false)
            }
            _ => self.begin(id, Instant::now()),
        }
    }

    /// Tells who watches the latencies so far.
    fn tell(&self) {
        if let Some(so_far) = &self.spec.so_far
            && !self.histogram.is_empty()
        {
            let quantile = |q| self.histogram.value_at_quantile(q);
            so_far.p50.store(quantile(0.5), Ordering::Relaxed);
            so_far.p99.store(quantile(0.99), Ordering::Relaxed);
        }
    }

    fn find_stalled(&self, now: Instant) -> Result<(), LoadError> {
        let stalled = |connection: &&Connection| {
            connection.busy && now.saturating_duration_since(connection.moved) >= self.spec.stall_timeout
        };
        match self.connections.iter().find(stalled) {
            Some(connection) => Err(connection.stalled()),
            None => Ok(()),
        }
    }

    fn report(&self, now: Instant, window: Duration, cpu: Duration) -> LoadReport {
        let messages = self.histogram.len();
        LoadReport {
            messages,
            bytes: messages * self.script.size() as u64,
            unsent: self.schedule.as_ref().map_or(0, |schedule| schedule.unsent(now)),
            seconds: window.as_secs_f64(),
            latency: latency(&self.histogram),
            cpu_seconds: cpu.as_secs_f64(),
            connect_seconds: 0.0,
            histogram: steps(&self.histogram),
            slow: self.slow_script.as_ref().map(|_| SlowReport {
                messages: self.slow_histogram.len(),
                latency: latency(&self.slow_histogram),
                histogram: steps(&self.slow_histogram),
            }),
            lazy: self.spec.lazy.map(|_| {
                let sum = |bytes: fn(&Lazy) -> u64| -> u64 { self.lazy.iter().map(bytes).sum() };
                (sum(|each| each.sent), sum(|each| each.received))
            }),
        }
    }
}

/// The script of connection `id`.
fn script<'a>(usual: &'a Script, slow: Option<&'a Script>, spec: &LoadSpec, id: usize) -> &'a Script {
    match slow {
        Some(script) if id >= spec.connections => script,
        _ => usual,
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let quantile = |q| histogram.value_at_quantile(q);
    Latency {
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        p9999: quantile(0.9999),
        max: histogram.max(),
        mean: histogram.mean(),
    }
}

fn steps(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect()
}
