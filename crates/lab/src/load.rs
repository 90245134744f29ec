//! The load: many connections (TCP, Unix or UDP) on one thread, closed loop, every byte verified.
//!
//! Each connection sends one message, reads its echo back, checks it byte by byte, notes the round trip and
//! sends the next. *Closed loop* means that the server sets the pace: latencies are those of a server which
//! is as busy as it can be with so many clients, and say nothing about a given arrival rate ("coordinated
//! omission": a slow answer also delays the question after it).
//!
//! With `churn` each message has a connection of its own, and a round trip includes connecting.
//!
//! One file, one thing: `spec` the settings, the report and the errors; `connect` opening; `payload` what is
//! sent; `connection` one connection's steps; here the turn and the clock: warm-up, window, and the last
//! messages on their way home, so that the server sees its connections end in an orderly way.
//!
//! Plain level-triggered epoll, one `recv` and one `send` a message. It is the most a bare server needs on
//! the other side, and `cpu_seconds` says when it was the limit nevertheless.

mod connect;
mod connection;
mod payload;
mod spec;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::cpu;
use crate::sockets::Epoll;
use connect::Opener;
use connection::{Connection, Step};
use payload::Payload;

pub use spec::{Latency, LoadError, LoadReport, LoadSpec, MAX_DATAGRAM, MAX_SIZE, Target};

/// How often a load that waits looks at the clock and at `stop`.
const TICK_MS: libc::c_int = 10;

/// What one `recv` may bring. One buffer for all connections: it stays in the cache.
const BUFFER: usize = 256 * 1024;

/// Latencies up to ten minutes; anything longer is recorded as that.
const LONGEST_NS: u64 = 600_000_000_000;

/// Runs one load on the calling thread. It ends after `connect_timeout + warmup + duration + stall_timeout`
/// at the latest, and soon after `stop` is set (with what the window has measured so far). `progress` counts
/// verified messages, warm-up included.
///
/// # Errors
/// Every [`LoadError`]: the first connection that fails fails the run.
pub fn run(spec: &LoadSpec, progress: &AtomicU64, stop: &AtomicBool) -> Result<LoadReport, LoadError> {
    spec.check()?;
    let began = Instant::now();
    let sockets = connect::connect_all(spec, stop)?;
    let connect_seconds = began.elapsed().as_secs_f64();
    let epoll = Epoll::new(1024).map_err(LoadError::io("epoll_create1"))?;
    let now = Instant::now();
    let mut connections = Vec::with_capacity(sockets.len());
    for (id, socket) in sockets.into_iter().enumerate() {
        let mut connection = Connection::new(socket, id, now);
        epoll
            .add(connection.fd(), libc::EPOLLIN, id as u64)
            .map_err(LoadError::io("epoll_ctl"))?;
        connection.finished = id >= spec.connections;
        connections.push(connection);
    }
    let mut load = Load {
        spec,
        opener: Opener::new(&spec.target).map_err(LoadError::io("the server's address"))?,
        progress,
        epoll,
        payload: Payload::new(spec.size),
        connections,
        buffer: vec![0; BUFFER].into_boxed_slice(),
        active: spec.connections,
        total: 0,
        phase: Phase::Warmup,
        histogram: Histogram::new_with_bounds(1, LONGEST_NS, 3)
            .map_err(|_| LoadError::Invalid("the histogram's bounds are wrong"))?,
        swept: now,
    };
    let mut report = load.drive(stop)?;
    report.connect_seconds = connect_seconds;
    Ok(report)
}

/// Where the run is in time.
enum Phase {
    Warmup,
    /// Since when, and the thread's CPU time then.
    Window(Instant, Duration),
    /// No new messages; those under way are still awaited and verified.
    Drain(LoadReport),
}

struct Load<'a> {
    spec: &'a LoadSpec,
    opener: Opener,
    progress: &'a AtomicU64,
    epoll: Epoll,
    payload: Payload,
    connections: Vec<Connection>,
    buffer: Box<[u8]>,
    /// Connections with a message under way.
    active: usize,
    /// Verified messages, warm-up and drain included.
    total: u64,
    phase: Phase,
    histogram: Histogram<u64>,
    /// When stalled connections were last looked for.
    swept: Instant,
}

impl Load<'_> {
    fn drive(&mut self, stop: &AtomicBool) -> Result<LoadReport, LoadError> {
        let opens = Instant::now() + self.spec.warmup;
        let mut closes = opens + self.spec.duration;
        for id in 0..self.spec.connections {
            self.begin(id)?;
        }
        loop {
            let ready = self.epoll.wait(TICK_MS).map_err(LoadError::io("epoll_wait"))?;
            let now = Instant::now();
            let stopped = stop.load(Ordering::Relaxed);
            match &mut self.phase {
                Phase::Warmup if stopped => return Err(LoadError::Stopped),
                Phase::Warmup if now >= opens => {
                    self.phase = Phase::Window(now, cpu::thread_time());
                    // The window is as long as was asked for, even if the warm-up's last turn was late.
                    closes = now + self.spec.duration;
                }
                Phase::Window(since, cpu_then) if stopped || now >= closes => {
                    let (since, cpu_then) = (*since, *cpu_then);
                    closes = now;
                    self.phase = Phase::Drain(self.report(now - since, cpu::thread_time() - cpu_then));
                }
                Phase::Drain(report) => {
                    let late = now >= closes + self.spec.stall_timeout;
                    if self.active == 0 || stopped || late {
                        let report = std::mem::take(report);
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
            self.progress.store(self.total, Ordering::Relaxed);
            if now - self.swept >= (self.spec.stall_timeout / 8).min(Duration::from_millis(250)) {
                self.swept = now;
                self.find_stalled(now)?;
            }
        }
    }

    /// Sends the first part of the current message, which is nearly always all of it.
    fn begin(&mut self, id: usize) -> Result<(), LoadError> {
        self.connections[id].began = Instant::now();
        if self.spec.churn && self.connections[id].message > 0 {
            self.reopen(id)?;
        }
        let connection = &mut self.connections[id];
        let step = connection.send(&self.payload)?;
        self.set_writing(id, step != Step::Complete)
    }

    /// Closes the connection and begins another in its place. What cannot be sent before it is established
    /// waits for EPOLLOUT, as after any other short `send`.
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

    /// Registers or drops interest in writing, if that is a change.
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

    /// One event: at most one `recv` and one `send` of this message, and the first `send` of the next.
    fn step(&mut self, id: usize, events: libc::c_int, now: Instant) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        let mut received = Step::Blocked;
        if events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
            received = connection.receive(&self.payload, &mut self.buffer)?;
            if received != Step::Blocked {
                connection.moved = now;
            }
        }
        if received == Step::Complete {
            return self.complete(id);
        }
        let connection = &mut self.connections[id];
        if connection.writing && events & libc::EPOLLOUT != 0 {
            match connection.send(&self.payload)? {
                Step::Blocked => {}
                Step::Moved => connection.moved = now,
                Step::Complete => {
                    connection.moved = now;
                    self.set_writing(id, false)?;
                }
            }
        }
        Ok(())
    }

    /// A verified echo: note it, send the next message.
    fn complete(&mut self, id: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        self.total += 1;
        if let Phase::Window(..) = self.phase {
            let nanos = u64::try_from(connection.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.histogram.saturating_record(nanos);
        }
        if let Phase::Drain(_) = self.phase {
            connection.finished = true;
            self.active -= 1;
            return self.set_writing(id, false);
        }
        connection.next();
        self.begin(id)
    }

    fn find_stalled(&self, now: Instant) -> Result<(), LoadError> {
        let stalled = |connection: &&Connection| {
            !connection.finished && now.saturating_duration_since(connection.moved) >= self.spec.stall_timeout
        };
        match self.connections[..self.spec.connections].iter().find(stalled) {
            Some(connection) => Err(connection.stalled()),
            None => Ok(()),
        }
    }

    fn report(&self, window: Duration, cpu: Duration) -> LoadReport {
        let messages = self.histogram.len();
        let quantile = |q| self.histogram.value_at_quantile(q);
        LoadReport {
            messages,
            bytes: messages * self.spec.size as u64,
            seconds: window.as_secs_f64(),
            latency: Latency {
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                p9999: quantile(0.9999),
                max: self.histogram.max(),
                mean: self.histogram.mean(),
            },
            cpu_seconds: cpu.as_secs_f64(),
            connect_seconds: 0.0,
            histogram: self
                .histogram
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
                .collect(),
        }
    }
}
