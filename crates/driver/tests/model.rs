//! Runs random submissions, cancels, closes and actions of the peer on socket pairs against a model of the contract:
//! every token has exactly one terminal completion, bytes arrive in order and complete, no op is left in flight.
//!
//! `PROACT_MODEL_SEED=n` runs one seed. A failure names the seed, the engine and the step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Completion, Config, Driver, Engine, Flags, Op, Submitted, Token, open, ops};

const CONNECTIONS: usize = 6;
const STEPS: usize = 1500;

/// What the model knows of an op in flight.
struct Pending {
    connection: usize,
    op: Op,
    cancelled: bool,
    /// `Driver::cancel` returned true: the cancel has ended the op.
    ended: bool,
    closed: bool,
}

/// A socket pair. The engine works on one end, the test on the other.
struct Connection {
    peer: Option<UnixStream>,
    fd: RawFd,
    generation: u64,
    /// How many bytes of its stream the peer has written, and how many of them the engine has received.
    written: u64,
    received: u64,
    /// How many bytes of its stream the engine has sent, and how many of them the peer has read.
    sent: u64,
    read: u64,
    receiving: Option<Token>,
    sending: Option<Token>,
    polling: Vec<Token>,
    ended: bool,
}

/// The byte at an offset of a stream. It depends on the connection, its generation and the offset.
fn byte(seed: u64, place: u64) -> u8 {
    (place.wrapping_mul(31) ^ (place >> 7) ^ seed.wrapping_mul(0x9E37_79B9)) as u8
}

fn stretch(seed: u64, from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|place| byte(seed, place)).collect()
}

impl Connection {
    fn new(generation: u64) -> Connection {
        let (peer, end) = pair();
        Connection {
            peer: Some(peer),
            fd: end.into_raw_fd(),
            generation,
            written: 0,
            received: 0,
            sent: 0,
            read: 0,
            receiving: None,
            sending: None,
            polling: Vec::new(),
            ended: false,
        }
    }

    fn inward(&self) -> u64 {
        self.generation * 2
    }

    fn outward(&self) -> u64 {
        self.generation * 2 + 1
    }
}

struct World {
    driver: Box<dyn Driver>,
    random: Random,
    connections: Vec<Connection>,
    /// The ops in flight, also of connections that were closed.
    pending: HashMap<Token, Pending>,
    memory: HashMap<Token, &'static mut [u8]>,
    held: VecDeque<Completion>,
    next_token: Token,
    generations: u64,
    name: String,
}

impl World {
    fn submit(&mut self, connection: usize, op: Op, memory: Option<&'static mut [u8]>) {
        let token = self.next_token;
        self.next_token += 1;
        let pending = Pending {
            connection,
            op,
            cancelled: false,
            ended: false,
            closed: false,
        };
        if let Some(memory) = memory {
            self.memory.insert(token, memory);
        }
        let state = &mut self.connections[connection];
        match op {
            Op::Recv(ops::Recv { .. }) | Op::RecvMulti(ops::RecvMulti { .. }) => {
                state.receiving = Some(token)
            }
            Op::Send(ops::Send { .. }) => state.sending = Some(token),
            Op::Poll(ops::Poll { .. }) | Op::PollMulti(ops::PollMulti { .. }) => state.polling.push(token),
            _ => {}
        }
        self.pending.insert(token, pending);
        // SAFETY: the memory is leaked.
        if let Submitted::Ready(result) = unsafe { self.driver.submit(token, op) } {
            self.over(token, result);
        }
    }

    fn receive(&mut self, connection: usize, bytes: &[u8], closed: bool) {
        let name = self.name.clone();
        let state = &mut self.connections[connection];
        if closed {
            // The bytes belong to a connection that was replaced, and the model no longer knows its stream.
            return;
        }
        assert_eq!(
            bytes,
            stretch(state.inward(), state.received, bytes.len()),
            "{name}: wrong bytes"
        );
        state.received += bytes.len() as u64;
        assert!(state.received <= state.written, "{name}: more than was written");
    }

    /// Handles a terminal completion.
    fn over(&mut self, token: Token, result: i32) {
        let name = self.name.clone();
        let pending = self
            .pending
            .remove(&token)
            .unwrap_or_else(|| panic!("{name}: {token} ended twice"));
        let memory = self.memory.remove(&token);
        let index = pending.connection;
        let canceled = result == CANCELED;
        assert!(!pending.ended || canceled, "{name}: {result} after its end");
        assert!(
            !canceled || pending.cancelled || pending.closed,
            "{name}: nobody cancelled {:?}",
            pending.op
        );
        if !pending.closed {
            let state = &mut self.connections[index];
            state.receiving = state.receiving.filter(|receiving| *receiving != token);
            state.sending = state.sending.filter(|sending| *sending != token);
            state.polling.retain(|polling| *polling != token);
        }
        match pending.op {
            Op::Recv(ops::Recv { .. }) if result > 0 => {
                let memory = memory.unwrap();
                self.receive(index, &memory[..result as usize], pending.closed);
            }
            Op::Recv(ops::Recv { .. }) | Op::RecvMulti(ops::RecvMulti { .. }) => {
                if !pending.closed && !canceled {
                    let state = &mut self.connections[index];
                    assert!(state.peer.is_none(), "{name}: {result} while the peer is there");
                    assert!(result == 0 || result == -libc::ECONNRESET, "{name}: {result}");
                    // The end of the stream comes after the last byte, unless unread bytes have turned it into a
                    // reset.
                    assert!(
                        result != 0 || state.received == state.written,
                        "{name}: the end came early"
                    );
                    state.ended = true;
                }
            }
            Op::Send(ops::Send { len, .. }) if result > 0 => {
                assert!(result as usize <= len);
                if !pending.closed {
                    self.connections[index].sent += result as u64;
                }
            }
            Op::Send(ops::Send { .. }) => {
                let broken = [-libc::EPIPE, -libc::ECONNRESET].contains(&result);
                assert!(
                    canceled || pending.closed || (broken && self.connections[index].peer.is_none()),
                    "{name}: {result}"
                );
            }
            Op::Poll(ops::Poll { .. }) | Op::PollMulti(ops::PollMulti { .. }) => {
                assert!(canceled || result > 0, "{name}: {result}")
            }
            Op::Close(ops::Close { .. }) => assert_eq!(result, 0, "{name}: close"),
            _ => unreachable!(),
        }
    }

    fn wait(&mut self, timeout: Duration) {
        let mut batch = Vec::new();
        self.driver.wait(Some(timeout), &mut batch).unwrap();
        for completion in batch {
            let name = &self.name;
            if completion.is_terminal() {
                self.over(completion.token, completion.result);
                continue;
            }
            let pending = self
                .pending
                .get(&completion.token)
                .unwrap_or_else(|| panic!("{name}: after the end"));
            let (index, closed) = (pending.connection, pending.closed);
            match pending.op {
                Op::PollMulti(ops::PollMulti { .. }) => assert!(completion.result > 0, "{name}"),
                Op::RecvMulti(ops::RecvMulti { .. }) => {
                    assert!(completion.flags.contains(Flags::DATA));
                    let data = self.driver.data(&completion).to_vec();
                    self.receive(index, &data, closed);
                    if self.random.below(4) == 0 {
                        self.held.push_back(completion);
                    } else {
                        self.driver.release(&completion);
                    }
                }
                _ => panic!("{name}: more of a single op"),
            }
        }
        while self.held.len() > self.random.below(6) {
            let completion = self.held.pop_front().unwrap();
            self.driver.release(&completion);
        }
        let stats = self.driver.stats();
        assert_eq!(stats.in_flight, self.pending.len(), "{}: in flight", self.name);
    }

    /// Lets the peer read, and checks the bytes.
    fn peer_reads(&mut self, connection: usize, len: usize) {
        let name = self.name.clone();
        let state = &mut self.connections[connection];
        let (seed, read) = (state.outward(), state.read);
        let Some(peer) = &mut state.peer else { return };
        let mut bytes = vec![0; len];
        match peer.read(&mut bytes) {
            Ok(count) => {
                assert_eq!(
                    bytes[..count],
                    stretch(seed, read, count),
                    "{name}: wrong bytes at the peer"
                );
                state.read += count as u64;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{name}"),
        }
    }

    fn peer_writes(&mut self, connection: usize, len: usize) {
        let state = &mut self.connections[connection];
        let bytes = stretch(state.inward(), state.written, len);
        let Some(peer) = &mut state.peer else { return };
        if let Ok(count) = peer.write(&bytes) {
            state.written += count as u64;
        }
    }

    fn start_receive(&mut self, connection: usize) {
        let state = &self.connections[connection];
        if state.receiving.is_some() || state.ended {
            return;
        }
        let fd = state.fd;
        if self.random.below(2) == 0 {
            self.submit(connection, Op::RecvMulti(ops::RecvMulti { fd }), None);
        } else {
            let memory = buffer(1 + self.random.below(3000));
            let (buf, len) = (memory.as_mut_ptr(), memory.len());
            self.submit(
                connection,
                Op::Recv(ops::Recv {
                    fd,
                    buf,
                    len,
                    flags: 0,
                }),
                Some(memory),
            );
        }
    }

    fn start_send(&mut self, connection: usize) {
        let state = &self.connections[connection];
        if state.sending.is_some() {
            return;
        }
        let len = if self.random.below(8) == 0 {
            400_000
        } else {
            1 + self.random.below(5000)
        };
        let memory = stretch(state.outward(), state.sent, len).leak();
        let (fd, buf) = (state.fd, memory.as_ptr());
        self.submit(
            connection,
            Op::Send(ops::Send {
                fd,
                buf,
                len,
                flags: 0,
            }),
            Some(memory),
        );
    }

    fn cancel_one(&mut self) {
        let mut tokens: Vec<Token> = self.pending.keys().copied().collect();
        tokens.sort_unstable();
        if tokens.is_empty() {
            assert!(!self.driver.cancel(self.next_token + 7));
            return;
        }
        let token = tokens[self.random.below(tokens.len())];
        let pending = self.pending.get_mut(&token).unwrap();
        if !matches!(pending.op, Op::Close(ops::Close { .. })) {
            pending.cancelled = true;
        }
        pending.ended |= self.driver.cancel(token);
    }

    /// Closes the engine's end with its ops in flight. A new pair replaces it and may get its number.
    fn replace(&mut self, index: usize) {
        let fd = self.connections[index].fd;
        for pending in self
            .pending
            .values_mut()
            .filter(|pending| pending.connection == index)
        {
            pending.closed = true;
        }
        self.submit(index, Op::Close(ops::Close { fd }), None);
        self.generations += 1;
        if self.random.below(2) == 0 {
            self.wait(Duration::ZERO);
        }
        self.connections[index] = Connection::new(self.generations);
    }

    fn step(&mut self) {
        let index = self.random.below(CONNECTIONS);
        match self.random.below(20) {
            0..4 => self.start_receive(index),
            4..7 => self.start_send(index),
            7..10 => {
                let len = 1 + self.random.below(6000);
                self.peer_writes(index, len);
            }
            10..12 => {
                let len = 1 + self.random.below(20_000);
                self.peer_reads(index, len);
            }
            12 => {
                let events = if self.random.below(2) == 0 {
                    POLLIN
                } else {
                    POLLOUT
                };
                let fd = self.connections[index].fd;
                if self.connections[index].polling.len() < 3 {
                    let multi = self.random.below(2) == 0;
                    let op = if multi {
                        Op::PollMulti(ops::PollMulti { fd, events })
                    } else {
                        Op::Poll(ops::Poll { fd, events })
                    };
                    self.submit(index, op, None);
                }
            }
            13 | 14 => self.cancel_one(),
            15 if self.random.below(3) == 0 => self.connections[index].peer = None,
            16 if self.random.below(2) == 0 => self.replace(index),
            _ => {
                let timeout = Duration::from_micros(self.random.below(3) as u64 * 50);
                self.wait(timeout);
            }
        }
    }

    /// Finishes a run: the engine receives everything that the peers have written, the peers read everything that the
    /// engine has sent, and cancels end the ops that are left.
    fn settle(&mut self) {
        let begun = Instant::now();
        for index in 0..CONNECTIONS {
            while self.connections[index].peer.is_some()
                && self.connections[index].received < self.connections[index].written
            {
                self.start_receive(index);
                self.wait(Duration::from_millis(1));
                assert!(begun.elapsed() < LIMIT, "{}: bytes are missing", self.name);
            }
            while self.connections[index].peer.is_some()
                && (self.connections[index].sending.is_some()
                    || self.connections[index].read < self.connections[index].sent)
            {
                self.peer_reads(index, 100_000);
                self.wait(Duration::ZERO);
                assert!(begun.elapsed() < LIMIT, "{}: bytes are stuck", self.name);
            }
        }
        for (token, pending) in &mut self.pending {
            pending.cancelled = true;
            pending.ended |= self.driver.cancel(*token);
        }
        while !self.pending.is_empty() {
            self.wait(Duration::from_millis(1));
            assert!(
                begun.elapsed() < LIMIT,
                "{}: {} ops do not end",
                self.name,
                self.pending.len()
            );
        }
        for index in 0..CONNECTIONS {
            let fd = self.connections[index].fd;
            self.submit(index, Op::Close(ops::Close { fd }), None);
        }
        while !self.pending.is_empty() {
            self.wait(Duration::from_millis(1));
        }
        assert_eq!(self.driver.stats().in_flight, 0, "{}", self.name);
        assert_eq!(self.driver.shutdown(LIMIT), 0, "{}", self.name);
    }
}

fn run(engine: Engine, config: &Config, seed: u64, what: &str) {
    let driver = match open(engine, config) {
        Ok(driver) => driver,
        Err(error) => return report_missing(engine, &error),
    };
    let mut world = World {
        driver,
        random: Random::new(seed),
        connections: (0..CONNECTIONS as u64).map(Connection::new).collect(),
        pending: HashMap::new(),
        memory: HashMap::new(),
        held: VecDeque::new(),
        next_token: 1,
        generations: CONNECTIONS as u64,
        name: String::new(),
    };
    for step in 0..STEPS {
        world.name = format!("{}{what}, seed {seed}, step {step}", engine.name());
        world.step();
    }
    world.name = format!("{}{what}, seed {seed}, at the end", engine.name());
    world.settle();
}

fn seeds() -> Vec<u64> {
    match std::env::var("PROACT_MODEL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=15).collect(),
    }
}

#[test]
fn every_engine_keeps_to_the_model() {
    for seed in seeds() {
        for engine in Engine::ALL {
            run(engine, &Config::default(), seed, "");
        }
    }
}

#[test]
fn a_small_ring_keeps_to_the_model() {
    let config = Config {
        entries: 8,
        cq_entries: 8,
        buffers: 2,
        max_buffers: 4,
        buffer_size: 128,
        ..Config::default()
    };
    for seed in seeds() {
        run(Engine::IoUring, &config, seed, " (small)");
    }
}

#[test]
fn a_crippled_ring_keeps_to_the_model() {
    for words in [
        &["recv", "send"][..],
        &["buf_ring"],
        &["multishot_recv", "ext_arg"],
        &["defer_taskrun", "single_issuer", "coop_taskrun", "plain"],
        &["recv", "send", "close"],
    ] {
        let deny: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
        let config = Config {
            deny,
            buffers: 2,
            max_buffers: 4,
            buffer_size: 512,
            ..Config::default()
        };
        for seed in seeds().into_iter().take(4) {
            run(Engine::IoUring, &config, seed, &format!(" (without {words:?})"));
        }
    }
}
