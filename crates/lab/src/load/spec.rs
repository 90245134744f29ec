//! The settings of a load run, its report, and every way in which it can fail.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The largest message: 16 MiB.
pub const MAX_SIZE: usize = 16 * 1024 * 1024;

/// The highest rate, in messages per second.
pub const MAX_RATE: f64 = 10e6;

/// The largest message that UDP over IPv4 carries: 65,535 bytes less the headers of IP and UDP.
pub const MAX_DATAGRAM: usize = 65_507;

/// The address of the server, and the transport of the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Tcp(SocketAddr),
    /// One datagram per message. The load sends no datagram again, so a lost one is a stall.
    Udp(SocketAddr),
    /// A stream socket at this path. A path that begins with a NUL is an abstract name (unix(7)).
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) | Self::Udp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "{path:?}"),
        }
    }
}

/// A request and its only right response. Both are the same each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub request: Arc<[u8]>,
    pub response: Arc<[u8]>,
}

impl Exchange {
    fn check(&self) -> Result<(), LoadError> {
        if self.request.is_empty() || self.response.is_empty() {
            return Err(LoadError::Invalid("an exchange needs a request and a response"));
        }
        Ok(())
    }
}

/// The settings of one load run. Make them with [`LoadSpec::new`] and change those that differ.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// The server.
    pub target: Target,
    /// How many connections send. In a closed loop each has one unanswered message at any time; with a `rate` at most
    /// one.
    pub connections: usize,
    /// How many messages fall due per second, over all connections (open loop). The next message goes to the
    /// connection that has been free for longest. While none is free it waits, and its latency counts from the time
    /// at which it fell due.
    pub rate: Option<f64>,
    /// The request and the response, in place of an echo.
    pub exchange: Option<Exchange>,
    /// A number of additional connections in a closed loop with an exchange of their own, which is reported
    /// separately.
    pub slow: Option<(usize, Exchange)>,
    /// How many connections are opened and send nothing.
    pub idle: usize,
    /// A number of additional connections that send much more than they read, and the bytes that each reads per
    /// second. They send echoes of `size`, and are not counted as messages.
    pub lazy: Option<(usize, f64)>,
    /// TLS on all connections, by the machine's OpenSSL.
    pub tls: bool,
    /// The size of one message in bytes: 1 to [`MAX_SIZE`], over UDP to [`MAX_DATAGRAM`].
    pub size: usize,
    /// Each message has its own connection, which is closed when the echo has come back.
    pub churn: bool,
    /// How long the load runs before the window, without measuring.
    pub warmup: Duration,
    /// The length of the measured window.
    pub duration: Duration,
    /// All connections must be established within this time.
    pub connect_timeout: Duration,
    /// A connection that moves no byte for this long fails the run. This also limits how long the last answers may
    /// take after the window.
    pub stall_timeout: Duration,
    /// Where to put the latencies of the window so far, some times a second, for somebody who watches.
    pub so_far: Option<Arc<SoFar>>,
}

/// The latencies of a window that is not over, in nanoseconds; 0 until there are any.
#[derive(Debug, Default)]
pub struct SoFar {
    pub p50: AtomicU64,
    pub p99: AtomicU64,
}

impl LoadSpec {
    /// The defaults: one connection, 1 KiB, 0.2 s of warm-up, a window of 1 s, 10 s to connect, 5 s without progress.
    #[must_use]
    pub fn new(target: impl Into<Target>) -> Self {
        Self {
            target: target.into(),
            connections: 1,
            rate: None,
            exchange: None,
            slow: None,
            idle: 0,
            lazy: None,
            tls: false,
            size: 1024,
            churn: false,
            warmup: Duration::from_millis(200),
            duration: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(5),
            so_far: None,
        }
    }

    /// How many connections are opened, of all kinds together.
    pub(crate) fn opened(&self) -> usize {
        self.talking()
            .saturating_add(self.lazy())
            .saturating_add(self.idle)
    }

    /// How many connections read slowly. They are opened after those that send.
    pub(crate) fn lazy(&self) -> usize {
        self.lazy.map_or(0, |(connections, _)| connections)
    }

    /// How many connections send, including the slow ones. They are opened first.
    pub(crate) fn talking(&self) -> usize {
        let slow = self.slow.as_ref().map_or(0, |(connections, _)| *connections);
        self.connections.saturating_add(slow)
    }

    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.connections == 0 {
            return Err(LoadError::Invalid("connections must be at least 1"));
        }
        if self.size == 0 || self.size > MAX_SIZE {
            return Err(LoadError::Invalid("size must be from 1 byte to 16 MiB"));
        }
        if matches!(self.target, Target::Udp(_)) && self.size > MAX_DATAGRAM {
            return Err(LoadError::Invalid("a datagram holds at most 65507 bytes"));
        }
        if self
            .rate
            .is_some_and(|rate| !rate.is_finite() || rate <= 0.0 || rate > MAX_RATE)
        {
            return Err(LoadError::Invalid(
                "rate must be above 0 and at most 10 million messages per second",
            ));
        }
        if let Some(exchange) = &self.exchange {
            exchange.check()?;
        }
        if let Some((_, exchange)) = &self.slow {
            exchange.check()?;
        }
        if let Some((_, reads)) = self.lazy
            && (!reads.is_finite() || reads < 0.0 || self.exchange.is_some() || self.tls)
        {
            return Err(LoadError::Invalid(
                "slow readers echo without TLS, at 0 or more bytes per second",
            ));
        }
        if self.tls && (self.churn || !matches!(self.target, Target::Tcp(_))) {
            return Err(LoadError::Invalid("TLS is over TCP connections that stand"));
        }
        if self.duration.is_zero() {
            return Err(LoadError::Invalid("duration must be longer than zero"));
        }
        if self.stall_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(LoadError::Invalid("the timeouts must be longer than zero"));
        }
        Ok(())
    }
}

/// Round trips, in nanoseconds, from before the first `send` of a message (with a rate: from when it fell due) to
/// after the last `recv` of its answer. Three significant digits (`HdrHistogram`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
    pub mean: f64,
}

/// The results of one load run. All of them except `connect_seconds` are of the measured window only.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// How many answers arrived completely and were verified.
    pub messages: u64,
    /// The bytes of these answers, in one direction.
    pub bytes: u64,
    /// How many messages had fallen due when the window closed, but had no free connection.
    pub unsent: u64,
    /// The length of the window.
    pub seconds: f64,
    pub latency: Latency,
    /// CPU time of the load generator's thread. If it is near `seconds`, the generator was the limit, not the server.
    pub cpu_seconds: f64,
    /// The time from the first `connect` until all connections were established.
    pub connect_seconds: f64,
    /// Recorded latencies as (nanoseconds, count), ascending: raw data that can be merged with that of other runs.
    pub histogram: Vec<(u64, u64)>,
    /// The results of the slow connections, if there are any.
    pub slow: Option<SlowReport>,
    /// The bytes that the slow readers have sent and read when the window closed, if there are any.
    pub lazy: Option<(u64, u64)>,
}

/// The results of the slow connections, in the same window.
#[derive(Clone, Debug, Default)]
pub struct SlowReport {
    pub messages: u64,
    pub latency: Latency,
    pub histogram: Vec<(u64, u64)>,
}

impl LoadReport {
    /// Messages per second of the window.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.messages as f64 / self.seconds
        } else {
            0.0
        }
    }
}

/// Why a load run has no result. Connections are numbered from 0 in the order in which they were opened; idle ones
/// come last.
#[derive(Debug)]
pub enum LoadError {
    /// The settings make no sense.
    Invalid(&'static str),
    /// No server listens at the target.
    Refused(Target),
    /// Not every connection was established within `connect_timeout`.
    ConnectTimeout { connected: usize, wanted: usize },
    /// The limit on open files (`ulimit -n`) does not allow that many connections.
    TooManyFiles { wanted: usize, limit: u64 },
    /// All local ports towards this address are taken (about 28,000 by default;
    /// `net.ipv4.ip_local_port_range`).
    NoPorts { connected: usize, wanted: usize },
    /// The server broke the connection (`ECONNRESET`, `EPIPE`).
    Reset { connection: usize, message: u64 },
    /// The server closed the connection in an orderly way, before or during a message.
    Closed {
        connection: usize,
        message: u64,
        offset: usize,
    },
    /// The answer is wrong. `expected` is `None` for a byte past those that are due.
    Mismatch {
        connection: usize,
        message: u64,
        offset: usize,
        expected: Option<u8>,
        got: u8,
    },
    /// No byte moved for `stall_timeout`.
    Stall {
        connection: usize,
        message: u64,
        sent: usize,
        received: usize,
    },
    /// `stop` was set before the window began.
    Stopped,
    /// A system call failed with an error that no other variant covers.
    Io { doing: &'static str, source: io::Error },
}

impl LoadError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(what) => f.write_str(what),
            Self::Refused(target) => write!(f, "connection to {target} refused: no server listens there"),
            Self::ConnectTimeout { connected, wanted } => {
                write!(
                    f,
                    "only {connected} of {wanted} connections were established within the connect timeout"
                )
            }
            Self::TooManyFiles { wanted, limit } => {
                write!(
                    f,
                    "{wanted} connections do not fit the limit of {limit} open files (ulimit -n)"
                )
            }
            Self::NoPorts { connected, wanted } => write!(
                f,
                "no local ports left after {connected} of {wanted} connections (net.ipv4.ip_local_port_range)"
            ),
            Self::Reset { connection, message } => {
                write!(
                    f,
                    "connection {connection} was reset by the server during message {message}"
                )
            }
            Self::Closed {
                connection,
                message,
                offset,
            } => write!(
                f,
                "connection {connection} was closed by the server after {offset} bytes of message {message}"
            ),
            Self::Mismatch {
                connection,
                message,
                offset,
                expected: Some(expected),
                got,
            } => write!(
                f,
                "connection {connection}, message {message}, byte {offset}: expected {expected:#04x}, got {got:#04x}"
            ),
            Self::Mismatch {
                connection,
                message,
                offset,
                expected: None,
                got,
            } => write!(
                f,
                "connection {connection}, message {message}: byte {got:#04x} came at {offset}, past the bytes that are due"
            ),
            Self::Stall {
                connection,
                message,
                sent,
                received,
            } => write!(
                f,
                "connection {connection} stalled in message {message}: {sent} bytes sent, {received} received"
            ),
            Self::Stopped => f.write_str("stopped before the measurement began"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
