//! The io_uring engine: ops become submission queue entries, and one `io_uring_enter` a turn submits, waits and reaps.
//!
//! Files: `ring.rs` sets the ring up (and falls back on older kernels), `entry.rs` writes an op as an entry,
//! `buffers.rs` owns the buffers of `RecvMulti`, `probe.rs` asks once what the kernel permits. Here: the life of an op.
//!
//! `user_data` is the op's kind in the top byte and the token below, so that most completions need no look-up. Only ops
//! that the engine may have to submit again (multishots, emulated ops, level-triggered polls) are kept in a table.
//! An op whose opcode is denied is emulated: a poll on the ring, then the op's own system call.

mod buffers;
mod entry;
mod probe;
mod ring;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::{cqueue, opcode, types};

use crate::driver::{Config, Driver, Engine, Submitted};
use crate::fork::Generation;
use crate::op::{Completion, Flags, Op, OpKind, TOKEN_BITS, Token};
use crate::pool::Pool;
use crate::readiness::{TokenMap, is_transient_accept_error};
use crate::stats::Stats;
use crate::syscalls::{self, AGAIN};
use crate::waker::Waker;
use buffers::Buffers;
pub use probe::Features;
pub(crate) use probe::probe;
use ring::Ring;

const TOKEN_MASK: u64 = (1 << TOKEN_BITS) - 1;
/// Tag of the engine's own entries; below it, which one.
const INTERNAL: u8 = 0xFF;
const WAKE: u64 = 0;
const IGNORED: u64 = 1;
/// Bit of a tag: the entry is the poll that an emulated op waits on.
const EMULATED: u8 = 0x40;

fn tag(tag: u8, token: Token) -> u64 {
    (u64::from(tag) << TOKEN_BITS) | token
}

/// An op that may have to be submitted again.
#[derive(Clone, Copy)]
struct Kept {
    op: Op,
    emulated: bool,
    cancelled: bool,
    /// An entry of it is with the kernel; otherwise it waits in `rearm`.
    armed: bool,
}

pub struct UringDriver {
    // The ring goes first: dropping it ends the kernel's interest in everything below.
    ring: Ring,
    buffers: Buffers,
    features: Features,
    kept: TokenMap<Kept>,
    /// Tokens to submit again before the next wait.
    rearm: Vec<Token>,
    /// Entries that found the submission queue full.
    backlog: VecDeque<Entry>,
    queued: VecDeque<Completion>,
    reaped: Vec<(u64, i32, u32)>,
    pool: Option<Pool>,
    waker: Waker,
    wake_armed: bool,
    stats: Stats,
    generation: Generation,
}

impl UringDriver {
    /// # Errors
    /// Where the ring can't be set up (`ENOSYS`, `EPERM`, ...) or an opcode is denied that nothing can replace.
    pub fn new(config: &Config) -> io::Result<UringDriver> {
        let features = probe(config)?;
        let (ring, mut fallbacks) = Ring::new(config, &features)?;
        let (buffers, refusal) = Buffers::new(&ring, config, features.native(OpKind::RecvMulti));
        let mut features = features;
        if let Some(reason) = refusal {
            features.deny(OpKind::RecvMulti, "buf_ring", &reason);
        }
        fallbacks.extend(features.fallbacks());
        let waker = Waker::new()?;
        Ok(UringDriver {
            ring,
            buffers,
            features,
            kept: TokenMap::default(),
            rearm: Vec::new(),
            backlog: VecDeque::new(),
            queued: VecDeque::new(),
            reaped: Vec::with_capacity(256),
            pool: None,
            waker,
            wake_armed: false,
            stats: Stats::new(fallbacks),
            generation: Generation::current(),
        })
    }

    fn push(&mut self, entry: Entry) {
        if !self.backlog.is_empty() || !self.ring.push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    /// Sends the entry of a kept op on its way, for the first time or again.
    fn arm(&mut self, token: Token, op: &Op, emulated: bool) {
        let entry = if emulated {
            let Some((fd, direction)) = op.waits_on() else {
                return;
            };
            entry::poll(fd, direction).user_data(tag(EMULATED | op.kind() as u8, token))
        } else {
            entry::build(op).user_data(tag(op.kind() as u8, token))
        };
        self.push(entry);
    }

    fn keep(&mut self, token: Token, op: Op, emulated: bool) {
        self.kept.insert(
            token,
            Kept {
                op,
                emulated,
                cancelled: false,
                armed: true,
            },
        );
        self.arm(token, &op, emulated);
    }

    fn pooled(&mut self, token: Token, op: Op) {
        let waker = &self.waker;
        let pool = self.pool.get_or_insert_with(|| Pool::new(waker.clone()));
        // SAFETY: the contract of `Driver::submit`, passed on.
        unsafe { pool.submit(token, op) };
    }

    fn finish(&mut self, token: Token, kind: OpKind, result: i32, batch: &mut Vec<Completion>) {
        self.stats.complete(kind, true);
        batch.push(Completion::terminal(token, result));
    }

    fn finish_kept(&mut self, token: Token, kind: OpKind, result: i32, batch: &mut Vec<Completion>) {
        self.kept.remove(&token);
        self.finish(token, kind, result, batch);
    }

    /// The entry of a kept op is used up but the op goes on: submit it again before the next wait.
    fn again(&mut self, token: Token, kind: OpKind, batch: &mut Vec<Completion>) {
        match self.kept.get_mut(&token) {
            Some(kept) if !kept.cancelled => {
                kept.armed = false;
                self.rearm.push(token);
            }
            _ => self.finish_kept(token, kind, -libc::ECANCELED, batch),
        }
    }

    fn more(
        &mut self,
        token: Token,
        kind: OpKind,
        result: i32,
        flags: Flags,
        data: u32,
        batch: &mut Vec<Completion>,
    ) {
        self.stats.complete(kind, false);
        batch.push(Completion {
            token,
            result,
            flags: flags | Flags::MORE,
            data,
        });
    }

    fn on_recv_multi(&mut self, token: Token, result: i32, flags: u32, batch: &mut Vec<Completion>) {
        let buffer = cqueue::buffer_select(flags);
        let goes_on = cqueue::more(flags);
        match (result, buffer) {
            (1.., Some(buffer)) => {
                let full = if result as u32 == self.buffers.size() {
                    Flags::FULL
                } else {
                    Flags::default()
                };
                self.buffers.taken(buffer);
                self.more(
                    token,
                    OpKind::RecvMulti,
                    result,
                    Flags::DATA | full,
                    u32::from(buffer),
                    batch,
                );
                if !goes_on {
                    self.again(token, OpKind::RecvMulti, batch);
                }
            }
            (error, buffer) => {
                if let Some(buffer) = buffer {
                    self.buffers.taken(buffer);
                    self.buffers.give_back(buffer);
                }
                if goes_on {
                    return;
                }
                if error == -libc::ENOBUFS {
                    self.stats.buffer_exhaustions += 1;
                    self.buffers.grow();
                    self.again(token, OpKind::RecvMulti, batch);
                } else if error == AGAIN || error == -libc::EINTR {
                    self.again(token, OpKind::RecvMulti, batch);
                } else {
                    self.finish_kept(token, OpKind::RecvMulti, error, batch);
                }
            }
        }
    }

    fn on_accept_multi(&mut self, token: Token, result: i32, flags: u32, batch: &mut Vec<Completion>) {
        let over = !cqueue::more(flags);
        if result >= 0 {
            self.more(token, OpKind::AcceptMulti, result, Flags::default(), 0, batch);
        }
        if over && (result >= 0 || result == AGAIN || is_transient_accept_error(result)) {
            self.again(token, OpKind::AcceptMulti, batch);
        } else if over {
            self.finish_kept(token, OpKind::AcceptMulti, result, batch);
        }
    }

    fn on_poll_multi(&mut self, token: Token, result: i32, batch: &mut Vec<Completion>) {
        if result < 0 {
            self.finish_kept(token, OpKind::PollMulti, result, batch);
        } else {
            self.more(token, OpKind::PollMulti, result, Flags::default(), 0, batch);
            self.again(token, OpKind::PollMulti, batch);
        }
    }

    /// The poll of an emulated op has fired: make the op's own call.
    fn on_emulated(&mut self, token: Token, kind: OpKind, polled: i32, batch: &mut Vec<Completion>) {
        let Some(kept) = self.kept.get(&token).copied() else {
            return;
        };
        if polled < 0 {
            return self.finish_kept(token, kind, polled, batch);
        }
        match kept.op {
            Op::RecvMulti { fd } => {
                let Some(buffer) = self.buffers.take_free() else {
                    self.stats.buffer_exhaustions += 1;
                    self.buffers.grow();
                    return self.again(token, kind, batch);
                };
                let (buf, len) = self.buffers.slice_mut(buffer);
                self.stats.syscalls += 1;
                // SAFETY: the buffer is free, so nobody else uses its memory.
                let result = unsafe {
                    syscalls::attempt(&Op::Recv {
                        fd,
                        buf,
                        len,
                        flags: 0,
                    })
                };
                if result > 0 {
                    let full = if result as usize == len {
                        Flags::FULL
                    } else {
                        Flags::default()
                    };
                    self.more(token, kind, result, Flags::DATA | full, u32::from(buffer), batch);
                    return self.again(token, kind, batch);
                }
                self.buffers.give_back(buffer);
                if result == AGAIN {
                    self.again(token, kind, batch);
                } else {
                    self.finish_kept(token, kind, result, batch);
                }
            }
            Op::Connect { fd, .. } => self.finish_kept(token, kind, syscalls::socket_error(fd), batch),
            ref op => {
                self.stats.syscalls += 1;
                // SAFETY: the op is in flight, so its memory is valid (contract of `Driver::submit`).
                let result = unsafe { syscalls::attempt(op) };
                let multi = kind == OpKind::AcceptMulti;
                if result == AGAIN || (multi && is_transient_accept_error(result)) {
                    self.again(token, kind, batch);
                } else if multi && result >= 0 {
                    self.more(token, kind, result, Flags::default(), 0, batch);
                    self.again(token, kind, batch);
                } else {
                    self.finish_kept(token, kind, result, batch);
                }
            }
        }
    }

    fn on_completion(&mut self, user_data: u64, result: i32, flags: u32, batch: &mut Vec<Completion>) {
        let (label, token) = ((user_data >> TOKEN_BITS) as u8, user_data & TOKEN_MASK);
        if label == INTERNAL {
            if token == WAKE {
                self.wake_armed = false;
                self.waker.drain();
            }
            return;
        }
        let kind = OpKind::ALL[usize::from(label & !EMULATED)];
        if label & EMULATED != 0 {
            return self.on_emulated(token, kind, result, batch);
        }
        match kind {
            OpKind::RecvMulti => self.on_recv_multi(token, result, flags, batch),
            OpKind::AcceptMulti => self.on_accept_multi(token, result, flags, batch),
            OpKind::PollMulti => self.on_poll_multi(token, result, batch),
            _ => self.finish(token, kind, result, batch),
        }
    }

    fn reap(&mut self, batch: &mut Vec<Completion>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        loop {
            self.ring.reap(&mut reaped);
            if reaped.is_empty() {
                break;
            }
            for (user_data, result, flags) in reaped.drain(..) {
                self.on_completion(user_data, result, flags, batch);
            }
        }
        self.reaped = reaped;
    }

    fn collect(&mut self, batch: &mut Vec<Completion>) {
        batch.extend(self.queued.drain(..));
        let stats = &mut self.stats;
        if let Some(pool) = &mut self.pool {
            let kept = &mut self.kept;
            pool.finished(|token, result| {
                if let Some(op) = kept.remove(&token) {
                    stats.complete(op.op.kind(), true);
                    batch.push(Completion::terminal(token, result));
                }
            });
        }
    }

    /// Everything that is to be submitted goes into the queue.
    fn prepare(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            let fd = types::Fd(self.waker.fd());
            self.push(
                opcode::PollAdd::new(fd, libc::POLLIN as u32)
                    .build()
                    .user_data(tag(INTERNAL, WAKE)),
            );
        }
        for token in std::mem::take(&mut self.rearm) {
            if let Some(kept) = self.kept.get_mut(&token) {
                kept.armed = true;
                let Kept { op, emulated, .. } = *kept;
                self.arm(token, &op, emulated);
            }
        }
    }

    /// Moves as much of the backlog into the queue as it takes.
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.ring.push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
    }

    fn enter(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            self.refill();
            let flooded = !self.backlog.is_empty();
            let timeout = if flooded || !batch.is_empty() || self.ring.has_completions() {
                Some(Duration::ZERO)
            } else {
                timeout
            };
            let sleeps = timeout != Some(Duration::ZERO);
            if !sleeps && !self.ring.needs_enter() {
                return Ok(());
            }
            self.stats.overflows += u64::from(self.ring.overflowed());
            self.stats.syscalls += 1;
            let begun = sleeps.then(Instant::now);
            let result = self.ring.enter(timeout);
            if let Some(begun) = begun {
                self.stats.wait_ns += begun.elapsed().as_nanos() as u64;
            }
            match result.map_err(|error| (error.raw_os_error(), error)) {
                Ok(()) | Err((Some(libc::ETIME | libc::EINTR), _)) => {}
                // The completion queue is full, or the kernel is short of memory: reap, then go on.
                Err((Some(libc::EBUSY | libc::EAGAIN), _)) => self.reap(batch),
                Err((_, error)) => return Err(error),
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
            self.reap(batch);
        }
    }
}

impl Driver for UringDriver {
    fn engine(&self) -> Engine {
        Engine::IoUring
    }

    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted {
        debug_assert!(token <= TOKEN_MASK);
        let kind = op.kind();
        if let Op::Close { fd } = op
            && self.features.cancel_by_fd
        {
            // Ops of this fd end before it is closed; the entries are carried out in their order.
            self.push(entry::cancel_all(fd).user_data(tag(INTERNAL, IGNORED)));
        }
        if self.features.native(kind) {
            self.stats.submit(kind);
            if matches!(kind, OpKind::AcceptMulti | OpKind::RecvMulti | OpKind::PollMulti) {
                self.keep(token, op, false);
            } else {
                let entry = entry::build(&op).user_data(tag(kind as u8, token));
                self.push(entry);
            }
            return Submitted::Pending;
        }
        match op.waits_on() {
            Some(_) => {
                if kind == OpKind::Connect {
                    self.stats.syscalls += 1;
                    // SAFETY: the contract of `submit`.
                    let result = unsafe { syscalls::attempt(&op) };
                    if result != -libc::EINPROGRESS {
                        self.stats.done_at_once(kind);
                        return Submitted::Ready(result);
                    }
                }
                self.stats.submit(kind);
                self.keep(token, op, true);
                Submitted::Pending
            }
            None if matches!(kind, OpKind::Close | OpKind::Shutdown) => {
                self.stats.done_at_once(kind);
                self.stats.syscalls += 1;
                // SAFETY: neither points at memory, and neither waits.
                Submitted::Ready(unsafe { syscalls::block(&op) })
            }
            None => {
                self.stats.submit(kind);
                self.kept.insert(
                    token,
                    Kept {
                        op,
                        emulated: true,
                        cancelled: false,
                        armed: true,
                    },
                );
                self.pooled(token, op);
                Submitted::Pending
            }
        }
    }

    fn cancel(&mut self, token: Token, kind: OpKind) {
        let mut label = kind as u8;
        if let Some(kept) = self.kept.get_mut(&token) {
            kept.cancelled = true;
            if kept.emulated && kept.op.waits_on().is_none() {
                if self.pool.as_mut().is_some_and(|pool| pool.cancel(token)) {
                    self.kept.remove(&token);
                    self.stats.complete(kind, true);
                    self.queued
                        .push_back(Completion::terminal(token, -libc::ECANCELED));
                }
                return;
            }
            if !kept.armed {
                self.rearm.retain(|waiting| *waiting != token);
                self.kept.remove(&token);
                self.stats.complete(kind, true);
                self.queued
                    .push_back(Completion::terminal(token, -libc::ECANCELED));
                return;
            }
            if kept.emulated {
                label |= EMULATED;
            }
        }
        let cancel = opcode::AsyncCancel::new(tag(label, token)).build();
        self.push(cancel.user_data(tag(INTERNAL, IGNORED)));
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.generation.check()?;
        self.ring.start()?;
        self.collect(batch);
        self.prepare();
        let idle = batch.is_empty() && timeout != Some(Duration::ZERO);
        let timeout = if idle && self.waker.fall_asleep() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        let result = self.enter(timeout, batch);
        self.waker.awake();
        self.reap(batch);
        self.collect(batch);
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.generation.check()?;
        // Before the first wait there is no thread that the ring belongs to: what is queued waits for it.
        if !self.ring.is_started() || !self.ring.needs_enter() {
            return Ok(());
        }
        self.stats.syscalls += 1;
        match self.ring.enter(Some(Duration::ZERO)) {
            // The completion queue is full or a signal came: the next wait goes on.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) => Err(error),
            _ => Ok(()),
        }
    }

    fn has_work(&self) -> Option<bool> {
        Some(
            !self.queued.is_empty()
                || !self.backlog.is_empty()
                || !self.rearm.is_empty()
                || self.ring.has_completions()
                || self.ring.needs_enter(),
        )
    }

    fn data(&self, completion: &Completion) -> &[u8] {
        self.buffers
            .data(completion.data as u16, completion.result as usize)
    }

    fn release(&mut self, completion: &Completion) {
        self.buffers.give_back(completion.data as u16);
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn features(&self) -> Option<&Features> {
        Some(&self.features)
    }

    fn shutdown(&mut self, limit: Duration) -> usize {
        if !self.generation.is_current() {
            std::mem::forget(self.pool.take());
            return self.stats.in_flight;
        }
        let deadline = Instant::now() + limit;
        let mut batch = Vec::new();
        if self.ring.start().is_ok() {
            let tokens: Vec<Token> = self.kept.keys().copied().collect();
            for token in tokens {
                let kind = self.kept[&token].op.kind();
                self.cancel(token, kind);
            }
            self.push(entry::cancel_everything().user_data(tag(INTERNAL, IGNORED)));
            while self.stats.in_flight > 0 && Instant::now() < deadline {
                if self.wait(Some(Duration::from_millis(10)), &mut batch).is_err() {
                    break;
                }
                for completion in batch.drain(..) {
                    if completion.flags.contains(Flags::DATA) {
                        self.buffers.give_back(completion.data as u16);
                    }
                }
            }
        }
        self.pool = None;
        self.stats.in_flight
    }
}
