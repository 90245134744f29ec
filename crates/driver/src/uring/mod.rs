//! The io_uring engine. Ops become submission queue entries, and one `io_uring_enter` per turn submits, waits and
//! reaps.
//!
//! Files: `setup.rs` makes a ring (with fallbacks on older kernels), `ring.rs` has its queues and `io_uring_enter`,
//! `label.rs` labels its entries, `table.rs` remembers the ops in flight, `complete.rs` turns the kernel's
//! completions into the driver's, `bind.rs` moves the loop to a ring of another thread, `buffers.rs` owns the buffers
//! of `RecvMulti`, `closing.rs` closes fds, `lends.rs` reads into registered memory, `probe.rs` asks once what the kernel permits. This file submits, cancels and waits.
//!
//! An op whose opcode is denied is emulated by a poll on the ring followed by the op's own system call, or, if the op
//! has no readiness, by a pool thread.

mod bind;
mod buffers;
mod closing;
mod complete;
mod label;
mod lends;
mod probe;
mod ring;
mod setup;
mod table;

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::completion::{Completion, Flags, Token};
use crate::driver::{Config, Driver, Engine, Submitted};
use crate::features::Features;
use crate::fork::Generation;
use crate::ops::{Course, Direction, Op, OpKind};
use crate::pool::{Pool, PoolCounts};
use crate::stats::Stats;
use crate::waker::Waker;
use buffers::RecvBuffers;
use label::{IGNORED, Label, WAKE};
use probe::probe;
use ring::Ring;
use table::{Table, Way};

pub struct UringDriver {
    // The ring is dropped first, because that ends the kernel's use of everything below.
    ring: Ring,
    buffers: RecvBuffers,
    features: Features,
    config: Config,
    table: Table,
    /// Ops to submit again before the next wait.
    rearm: Vec<Token>,
    /// Receives that found every buffer held. They are submitted again after a release.
    starved: Vec<Token>,
    /// Whether this wait has lent more buffers already.
    grew: bool,
    /// Entries that the next wait hands to the kernel.
    backlog: VecDeque<Entry>,
    queued: VecDeque<Completion>,
    reaped: Vec<(u64, i32, u32)>,
    pool: Option<Pool>,
    finished: Vec<(Token, i32)>,
    waker: Waker,
    wake_armed: bool,
    /// Whether the ring has registered the lent memory; `None`: nobody has read into it.
    lends: Option<bool>,
    /// The driver shuts down and nobody takes the completions: fds in them are closed.
    discards: bool,
    stats: Stats,
    generation: Generation,
}

impl UringDriver {
    /// # Errors
    /// The errors of the ring's set-up (`ENOSYS`, `EPERM`, ...), or `Unsupported` if an opcode that has no
    /// replacement is denied.
    pub fn new(config: &Config) -> io::Result<UringDriver> {
        let mut features = probe(config)?;
        let (ring, mut fallbacks) = Ring::new(config, &features)?;
        let (buffers, refusal) = RecvBuffers::new(&ring, config, features.native(OpKind::RecvMulti))?;
        if let Some(reason) = refusal {
            features.deny(OpKind::RecvMulti, "buf_ring", &reason);
        }
        fallbacks.extend(features.fallbacks());
        let waker = Waker::new()?;
        let mut stats = Stats::new(fallbacks);
        stats.buffers = buffers.lent().into();
        Ok(UringDriver {
            ring,
            buffers,
            features,
            config: config.clone(),
            table: Table::default(),
            rearm: Vec::new(),
            starved: Vec::new(),
            grew: false,
            backlog: VecDeque::new(),
            queued: VecDeque::new(),
            reaped: Vec::with_capacity(256),
            pool: None,
            finished: Vec::new(),
            waker,
            wake_armed: false,
            lends: None,
            discards: false,
            stats,
            generation: Generation::current(),
        })
    }

    /// How this ring carries out an op.
    fn way(&self, op: &Op) -> Way {
        if op.kind().facts().pooled {
            Way::Pool
        } else if self.features.native(op.kind()) {
            Way::Native
        } else if op.waits_on().is_some() {
            Way::Polled
        } else {
            Way::Pool
        }
    }

    /// Starts an op that is in the table, for the first time or again.
    fn arm(&mut self, token: Token, op: &Op, way: Way) {
        match (way, op.waits_on()) {
            (Way::Native, _) => {
                let label = Label::Op(op.kind(), token).user_data();
                let entry = self.entry(op).user_data(label);
                self.backlog.push_back(entry);
            }
            (Way::Polled, Some((fd, direction))) => self.arm_poll(token, op, fd, direction),
            (Way::Polled | Way::Pool, _) => {
                let waker = &self.waker;
                let pool = self.pool.get_or_insert_with(|| Pool::new(waker.clone()));
                self.stats.pooled += 1;
                // SAFETY: the op's memory is valid until its completion: the contract of `Driver::submit`.
                unsafe { pool.submit(token, *op) };
            }
        }
    }

    fn arm_poll(&mut self, token: Token, op: &Op, fd: RawFd, direction: Direction) {
        let poll = opcode::PollAdd::new(types::Fd(fd), direction.event()).build();
        self.backlog
            .push_back(poll.user_data(Label::Polled(op.kind(), token).user_data()));
    }

    /// Ends an op in flight, outside `wait`.
    fn end(&mut self, token: Token, result: i32) {
        if let Some(op) = self.table.remove(token) {
            self.stats.complete(op.op.kind(), true);
            self.queued.push_back(Completion::terminal(token, result));
        }
    }

    /// Carries an op out by its system call. Only ops that neither wait nor point at memory (a close, a shutdown)
    /// come here.
    fn at_once(&mut self, op: &Op) -> Submitted {
        // SAFETY: the op points at no memory.
        let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
        self.done(op, result)
    }

    /// The result of an op that is over during its submission.
    fn done(&mut self, op: &Op, result: i32) -> Submitted {
        self.stats.done_at_once(op.kind());
        Submitted::Ready(result)
    }

    /// Cancels one op. Returns whether the op has ended: neither the kernel nor a thread has it.
    fn cancel_one(&mut self, token: Token) -> bool {
        let Some(entry) = self.table.get_mut(token) else {
            return false;
        };
        let (op, way, armed) = (entry.op, entry.way, entry.armed);
        let (kind, course) = (op.kind(), op.course());
        // A close can't be cancelled, because the fd would leak.
        if entry.cancelled || matches!(course, Course::Close(_)) {
            return false;
        }
        let is_back = if !armed {
            self.rearm.retain(|waiting| *waiting != token);
            self.starved.retain(|waiting| *waiting != token);
            true
        } else if way == Way::Pool {
            self.pool
                .as_mut()
                .is_some_and(|pool| pool.cancel(token, self.discards))
        } else {
            entry.since_fill == self.ring.fills() && self.take_back(token)
        };
        if is_back {
            self.end(token, -libc::ECANCELED);
            return true;
        }
        if let Some(entry) = self.table.get_mut(token) {
            entry.cancelled = true;
        }
        let mut cancel = |label: Label| {
            let cancel = opcode::AsyncCancel::new(label.user_data()).build();
            self.backlog.push_back(cancel.user_data(IGNORED));
        };
        if way == Way::Native {
            cancel(Label::Op(kind, token));
        }
        // A splice polls between its attempts, whether the kernel or the pool makes them.
        if way == Way::Polled || matches!(course, Course::Splice { .. }) {
            cancel(Label::Polled(kind, token));
        }
        false
    }

    /// Removes an op's entry from the backlog. Returns whether it was there.
    fn take_back(&mut self, token: Token) -> bool {
        let is_its_own = |entry: &Entry| Label::read(entry.get_user_data()).token() == Some(token);
        let index = self.backlog.iter().rposition(is_its_own);
        index.and_then(|index| self.backlog.remove(index)).is_some()
    }

    fn collect(&mut self, batch: &mut Vec<Completion>) {
        batch.extend(self.queued.drain(..));
        if let Some(pool) = &mut self.pool {
            let mut finished = std::mem::take(&mut self.finished);
            pool.finished(&mut finished);
            for (token, result) in finished.drain(..) {
                self.stats.syscalls += 1;
                self.on_single(token, result, batch);
            }
            self.finished = finished;
        }
    }

    /// Puts everything that has to be submitted into the backlog.
    fn prepare(&mut self) {
        if !self.wake_armed {
            self.wake_armed = true;
            let fd = types::Fd(self.waker.fd());
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            self.backlog.push_back(poll.user_data(WAKE));
        }
        for index in 0..self.rearm.len() {
            let token = self.rearm[index];
            if let Some(entry) = self.table.get_mut(token) {
                entry.armed = true;
                entry.since_fill = self.ring.fills();
                entry.group = self.buffers.group();
                let (op, way) = (entry.op, entry.way);
                self.arm(token, &op, way);
            }
        }
        self.rearm.clear();
        self.close_closable();
    }

    /// Submits what is queued, waits, and collects what has come. If it may sleep, [`Waker::awake`] follows.
    fn turn(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        self.generation.check()?;
        self.bind()?;
        self.collect(batch);
        self.prepare();
        let idle = batch.is_empty() && self.queued.is_empty() && timeout != Some(Duration::ZERO);
        let sleeps = idle && self.waker.fall_asleep();
        let result = self.enter(if sleeps { timeout } else { Some(Duration::ZERO) }, batch);
        self.reap(batch);
        self.collect(batch);
        result
    }

    fn enter(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            self.ring.fill(&mut self.backlog);
            let flooded = !self.backlog.is_empty();
            let timeout = if flooded || !batch.is_empty() || self.ring.has_completions() {
                Some(Duration::ZERO)
            } else {
                timeout
            };
            let sleeps = timeout != Some(Duration::ZERO);
            if !sleeps && !flooded && !self.ring.needs_enter() {
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
                // The completion queue is full, or the kernel is short of memory (io_uring_enter(2)): reap, then go
                // on.
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
    fn name(&self) -> &'static str {
        Engine::IoUring.name()
    }

    unsafe fn submit(&mut self, token: Token, op: Op) -> Submitted {
        if !self.generation.is_current() {
            return Submitted::Ready(-libc::EOWNERDEAD);
        }
        let (kind, course) = (op.kind(), op.course());
        if op.uses().into_iter().any(|fd| self.table.is_closing(fd)) {
            return self.done(&op, -libc::EBADF);
        }
        if let Course::Close(fd) = course {
            if self.table.is_closing(fd) {
                return self.done(&op, -libc::EBADF);
            }
            return self.submit_close(token, op, fd);
        }
        let way = self.way(&op);
        if let (Way::Pool, Course::Immediate(_)) = (way, course) {
            return self.at_once(&op);
        }
        if let (Way::Polled, Course::Connect(_)) = (way, course) {
            // SAFETY: the contract of `submit`.
            let result = unsafe { op.attempt_counted(&mut self.stats.syscalls) };
            if result != -libc::EINPROGRESS {
                return self.done(&op, result);
            }
        }
        self.stats.submit(kind);
        self.table.insert(token, op, way, self.ring.fills());
        if let (Course::RecvMulti(_), Some(entry)) = (course, self.table.get_mut(token)) {
            entry.group = self.buffers.group();
        }
        self.arm(token, &op, way);
        Submitted::Pending
    }

    fn cancel(&mut self, token: Token) -> bool {
        self.generation.is_current() && self.cancel_one(token)
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Completion>) -> io::Result<()> {
        let result = self.turn(timeout, batch);
        self.waker.awake();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.generation.check()?;
        // Before the first wait the ring belongs to no thread, and the ring of another thread can't be used here. In
        // both cases the next wait hands over what is queued.
        if !self.ring.is_ours() || (self.backlog.is_empty() && !self.ring.needs_enter()) {
            return Ok(());
        }
        let mut completed = Vec::new();
        let result = self.enter(Some(Duration::ZERO), &mut completed);
        self.queued.extend(completed);
        result
    }

    fn look(&mut self) -> io::Result<bool> {
        let has_come = self.waker.is_notified() || !self.queued.is_empty();
        if has_come || self.has_work() == Some(false) {
            return Ok(has_come);
        }
        let mut completed = Vec::new();
        let result = self.turn(Some(Duration::ZERO), &mut completed);
        self.queued.extend(completed);
        result.map(|()| !self.queued.is_empty())
    }

    fn acts_between_waits(&self) -> bool {
        !self.ring.is_inert()
    }

    fn tells_edges(&self) -> bool {
        self.features.native(OpKind::PollMulti)
    }

    fn has_work(&self) -> Option<bool> {
        Some(
            !self.generation.is_current()
                || !self.queued.is_empty()
                || !self.backlog.is_empty()
                || !self.rearm.is_empty()
                || !self.table.closable.is_empty()
                || self.ring.has_completions()
                || self.ring.needs_enter(),
        )
    }

    fn data(&self, completion: &Completion) -> &[u8] {
        let len = usize::try_from(completion.result).unwrap_or(0);
        self.buffers.data(completion.data as u16, len)
    }

    fn release(&mut self, completion: &Completion) {
        if self.generation.is_current() {
            self.buffers.give_back(completion.data as u16);
            self.rearm.append(&mut self.starved);
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn pool(&self) -> PoolCounts {
        self.pool.as_ref().map_or(PoolCounts::NONE, Pool::counts)
    }

    fn features(&self) -> Option<&Features> {
        Some(&self.features)
    }

    fn unbind(&mut self) {
        self.ring.unregister_fd();
    }

    fn shutdown(&mut self, limit: Duration) -> usize {
        if !self.generation.is_current() {
            return self.stats.in_flight;
        }
        self.discards = true;
        let deadline = Instant::now() + limit;
        if self.bind().is_ok() {
            let tokens: Vec<Token> = self.table.iter().map(|(token, _)| token).collect();
            for token in tokens {
                self.cancel_one(token);
            }
            let mut batch = Vec::new();
            while self.stats.in_flight > 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if self.wait(Some(left), &mut batch).is_err() || left.is_zero() {
                    break;
                }
                for completion in batch.drain(..) {
                    if completion.flags.contains(Flags::DATA) {
                        self.release(&completion);
                    }
                }
            }
        }
        self.discards = false;
        self.stats.in_flight
    }
}

impl Drop for UringDriver {
    fn drop(&mut self) {
        // `shutdown` was not called or did not end every op. The kernel ends them some time after the ring is closed,
        // so the buffers must stay.
        if self.stats.in_flight > 0 {
            self.buffers.leak();
        }
    }
}
