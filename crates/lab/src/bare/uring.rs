//! The proactor's ceiling: one io_uring, one thread, one system call a turn.
//!
//! How it is made. (Figures: Linux 6.18, two cores that others used too, `examples/measure.rs` and variants of it.)
//!
//! - A connection has one multishot receive, which takes its buffers from a small shared ring; an echo is a
//!   `send` out of that very buffer. Nothing is copied, and nothing is queued but the `send`.
//! - Sends are queued with MSG_DONTWAIT and CQE_SKIP_SUCCESS. They run when they are submitted, so once
//!   `io_uring_enter` has returned, a send without a completion *has* gone out whole and its buffer is free.
//!   The turn sleeps until there is input, and none is spent on learning that sends have succeeded: with one
//!   connection 1.0 system calls a message instead of 2.0, with 100 connections 0.12 instead of 0.18. The CPU
//!   time with 100 connections was the same within the noise.
//! - A send that does not go out whole is the exception. What is left is copied to the connection's own
//!   memory, from where an ordinary send waits for room. So the shared buffers are never held across turns by
//!   a peer that does not read.
//! - A connection that fills a small buffer and has more moves bulk: it changes to single receives into
//!   large buffers, and back after a run of small ones.
//! - An answer that is not an echo goes the way of what is left of a send: it is in the connection's memory anyway.
//! - Accepted sockets exist only in the ring's own table (direct descriptors). No difference to plain fds was
//!   measurable.
//!
//! Where it falls short: at 64 KiB and 100 connections it took about 9 % more CPU a message than `serve_epoll`.

mod connection;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, Fixed, Timespec};
use io_uring::{SubmissionQueue, Submitter, cqueue, opcode};

use super::{BULK, Session, TICK};
use crate::sockets;
use connection::{Chunk, Connection, KINDS, Kind, user_data};
use ring::{Buffers, Mode};

/// How large everything is that the ring consists of.
#[derive(Clone, Copy)]
struct Shape {
    /// Submissions between two system calls. The completion queue is four times as large: it has to hold a
    /// completion of each send that did not go out, and a multishot receive posts what it likes.
    entries: u32,
    /// How many small buffers, of how many bytes. One holds a usual request, all together what one turn can
    /// bring. 64 to 1,024 buffers of 2 to 16 KiB did not differ beyond the noise at 1 KiB a message.
    small: (u16, u32),
    /// The large ones. 8 and 32 did not differ at 64 KiB a message.
    large: (u16, u32),
    /// The best mode to ask the kernel for.
    mode: Mode,
}

const SHAPE: Shape = Shape {
    entries: 1024,
    small: (1024, 4096),
    large: (8, BULK as u32),
    mode: Mode::Deferred,
};

/// After so many receives in a row that a small buffer would have held, a connection no longer moves bulk.
const SMALL_RUN: u8 = 32;
/// What a connection may have unsent before its multishot receive is cancelled.
const BACKLOG: usize = 64 * 1024;

struct Server<'a, S> {
    submitter: Submitter<'a>,
    sq: SubmissionQueue<'a>,
    listener: OwnedFd,
    small: &'a mut Buffers,
    large: &'a mut Buffers,
    connections: &'a mut Vec<Connection<S>>,
    /// Something can go on as soon as this turn's sends have been submitted: do not sleep.
    hurry: bool,
    /// Who has a send that does not wait in this turn's submission.
    offers: Vec<u32>,
    /// Who found no buffer, and waits for one to be handed back.
    starved: VecDeque<u32>,
    accepting: bool,
    interval: Box<Timespec>,
}

/// Serves `S` on `listener` with io_uring, on the calling thread, until `stop` is set. Needs Linux 6.0
/// (multishot receive).
///
/// # Errors
/// When the ring cannot be had (`ENOSYS`, `EPERM`, `EINVAL` on older kernels), or the ring or the listening
/// socket breaks; what happens to one connection only closes that connection.
pub fn serve_uring<S: Session>(listener: OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    serve::<S>(listener, stop, SHAPE)
}

fn serve<S: Session>(listener: OwnedFd, stop: &AtomicBool, shape: Shape) -> io::Result<()> {
    sockets::set_nodelay(listener.as_raw_fd())?;
    sockets::set_nonblocking(listener.as_raw_fd(), false)?;
    // In this order, because the last one declared is dropped first: the ring goes before what the kernel may
    // still write to.
    let mut connections = Vec::new();
    let (mut small, mut large);
    let mut ring = ring::ring(shape.entries, shape.mode)?;
    ring.submitter().register_files_sparse(ring::table_size())?;
    small = Buffers::register(&ring.submitter(), 0, shape.small.0, shape.small.1)?;
    large = Buffers::register(&ring.submitter(), 1, shape.large.0, shape.large.1)?;
    let (submitter, sq, mut cq) = ring.split();
    let mut server = Server::<S> {
        submitter,
        sq,
        listener,
        small: &mut small,
        large: &mut large,
        connections: &mut connections,
        hurry: false,
        offers: Vec::new(),
        starved: VecDeque::new(),
        accepting: false,
        interval: Box::new(Timespec::from(TICK)),
    };
    server.tick()?;
    let mut batch: Vec<(u64, i32, u32)> = Vec::with_capacity(1024);
    let mut outcome = Ok(());
    while outcome.is_ok() && !stop.load(Ordering::Relaxed) {
        let submitted = server.enter();
        cq.sync();
        batch.extend((&mut cq).map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())));
        // Tells the kernel that they have been fetched. Otherwise it counts them still, and the next wait is none.
        cq.sync();
        outcome = submitted.and_then(|all| server.turn(&batch, all));
        batch.clear();
    }
    // The ring's end cancels what is under way too, but later, from another thread.
    drop(
        server
            .submitter
            .register_sync_cancel(Some(Timespec::from(TICK)), CancelBuilder::any()),
    );
    outcome
}

impl<S: Session> Server<'_, S> {
    /// The turn's system call: submits what has been queued and waits for a completion. False when the kernel
    /// did not take all of it, because it has completions for us that must be fetched first.
    fn enter(&mut self) -> io::Result<bool> {
        let want = usize::from(!std::mem::take(&mut self.hurry));
        loop {
            self.sq.sync();
            let answer = self.submitter.submit_and_wait(want);
            self.sq.sync();
            match answer.map_err(|error| (error.raw_os_error(), error)) {
                Err((Some(libc::EBUSY), _)) => return Ok(self.sq.is_empty()),
                // EAGAIN: no memory for a request just now.
                Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN), _)) if self.sq.is_empty() => return Ok(true),
                Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN), _)) => {}
                Err((_, error)) => return Err(error),
            }
        }
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: what the entry points to stays: buffers of the rings, `rest` of a connection that is kept
        // until the send's completion, the listening socket, the boxed interval, and a static.
        while unsafe { self.sq.push(entry) }.is_err() {
            self.sq.sync();
            match self.submitter.submit() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.sq.sync(),
            }
        }
        Ok(())
    }

    /// Everything that has completed. First the sends, so that what is received next goes out after what was
    /// received before. `submitted`: so have all sends been.
    fn turn(&mut self, batch: &[(u64, i32, u32)], submitted: bool) -> io::Result<()> {
        for &(data, result, _) in batch {
            if data >> 32 == Kind::Unsent as u64 {
                self.connections[data as u32 as usize].unsent = Some(result);
            }
        }
        if submitted {
            let mut offers = std::mem::take(&mut self.offers);
            for connection in offers.drain(..) {
                self.settle(connection)?;
            }
            // Settling may have queued further sends; the rest of this is only to keep the allocation.
            offers.append(&mut self.offers);
            self.offers = offers;
        }
        for &(data, result, flags) in batch {
            let connection = data as u32;
            match KINDS[(data >> 32) as usize] {
                Kind::Receive => self.received(connection, result, flags)?,
                Kind::Sent => self.sent(connection, result)?,
                Kind::Accept => self.accepted(result, flags)?,
                Kind::Tick => self.tick()?,
                Kind::Unsent | Kind::Ignored => {}
            }
        }
        let mut buffers = self.small.free().min(self.large.free());
        while buffers > 0 {
            let Some(connection) = self.starved.pop_front() else {
                break;
            };
            // It may have been armed since, or its slot may have a new owner.
            if self.arm(connection)? {
                buffers -= 1;
            }
        }
        // No completion need come of those just armed, nor of the sends that hold buffers: come back by
        // ourselves.
        self.hurry |= !self.starved.is_empty();
        self.small.publish();
        self.large.publish();
        Ok(())
    }

    /// Twenty times a second: `stop` is looked at, and accepting is tried again if there were no descriptors.
    fn tick(&mut self) -> io::Result<()> {
        let timeout = opcode::Timeout::new(&raw const *self.interval).build();
        self.push(&timeout.user_data(user_data(Kind::Tick, 0)))?;
        self.accept()
    }

    fn accept(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.accepting, true) {
            return Ok(());
        }
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .allocate_file_index(true)
            .build();
        self.push(&accept.user_data(user_data(Kind::Accept, 0)))
    }

    fn accepted(&mut self, result: i32, flags: u32) -> io::Result<()> {
        // After an error the tick takes it up again.
        self.accepting = cqueue::more(flags);
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            let passing = error.kind() == io::ErrorKind::ConnectionAborted || sockets::is_exhausted(&error);
            return if passing { Ok(()) } else { Err(error) };
        }
        let slot = result as usize;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, Connection::default);
        }
        self.connections[slot] = Connection {
            open: true,
            ..Connection::default()
        };
        self.set_nodelay(slot as u32)?;
        self.arm(slot as u32)?;
        self.accept()
    }

    /// The connection may have been in the backlog before the listening socket had the option, and it has no
    /// fd for `setsockopt`. Before Linux 6.7 the ring cannot do it either; then only such early ones go
    /// without.
    fn set_nodelay(&mut self, id: u32) -> io::Result<()> {
        static ON: libc::c_int = 1;
        let (level, name) = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
        let size = size_of::<libc::c_int>() as u32;
        let set = opcode::SetSockOpt::new(Fixed(id), level, name, (&raw const ON).cast(), size).build();
        self.push(&set.user_data(user_data(Kind::Ignored, id)))
    }

    /// Receives from now on (multishot), or once (bulk). False when there is no reason to.
    fn arm(&mut self, id: u32) -> io::Result<bool> {
        let connection = &mut self.connections[id as usize];
        if !connection.open || connection.armed || connection.ended {
            return Ok(false);
        }
        connection.armed = true;
        if std::mem::take(&mut connection.leaving) {
            connection.bulk = true;
        }
        let entry = if connection.bulk {
            let receive = opcode::Recv::new(Fixed(id), std::ptr::null_mut(), self.large.size());
            receive
                .buf_group(self.large.group())
                .build()
                .flags(Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(Fixed(id), self.small.group()).build()
        };
        self.push(&entry.user_data(user_data(Kind::Receive, id)))?;
        Ok(true)
    }

    fn received(&mut self, id: u32, result: i32, flags: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.armed = cqueue::more(flags);
        let large = connection.bulk;
        let Some(buffer) = cqueue::buffer_select(flags) else {
            match -result {
                libc::ENOBUFS => self.starved.push_back(id),
                // The cancel that makes way for bulk.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                _ => connection.ended = true,
            }
            connection.broken |= result < 0 && connection.ended;
            return if -result == libc::ENOBUFS {
                Ok(())
            } else {
                self.go_on(id)
            };
        };
        let buffers = if large { &mut *self.large } else { &mut *self.small };
        buffers.take();
        if result <= 0 {
            buffers.give_back(buffer);
            connection.ended = true;
            return self.go_on(id);
        }
        let full = result.unsigned_abs() >= self.small.size();
        if large {
            connection.small_run = if full { 0 } else { connection.small_run + 1 };
            connection.bulk = connection.small_run < SMALL_RUN;
        } else if full && cqueue::sock_nonempty(flags) {
            self.leave(id)?;
        }
        let chunk = Chunk {
            large,
            id: buffer,
            len: result.unsigned_abs(),
        };
        if !S::ECHOES {
            self.answer(id, chunk);
            if self.connections[id as usize].ended {
                return self.end(id);
            }
        }
        let connection = &mut self.connections[id as usize];
        if connection.waiting {
            if S::ECHOES {
                self.spill(id, chunk, 0);
            }
            if self.connections[id as usize].next.len() > BACKLOG {
                self.leave(id)?;
            }
            return Ok(());
        }
        if S::ECHOES {
            connection.out.push_back(chunk);
        }
        self.go_on(id)
    }

    /// What the session says to a chunk is left to be sent, and the buffer is handed back.
    fn answer(&mut self, id: u32, chunk: Chunk) {
        let buffers = if chunk.large {
            &mut *self.large
        } else {
            &mut *self.small
        };
        let connection = &mut self.connections[id as usize];
        if !connection.ended {
            let reply = connection.session.feed(buffers.data(chunk.id, chunk.len));
            connection.next.extend_from_slice(reply);
            connection.ended = connection.session.is_over();
        }
        buffers.give_back(chunk.id);
    }

    /// Ends the multishot receive; what it has received until then still comes.
    fn leave(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.small_run = 0;
        if connection.bulk || std::mem::replace(&mut connection.leaving, true) || !connection.armed {
            return Ok(());
        }
        let cancel = opcode::AsyncCancel::new(user_data(Kind::Receive, id)).build();
        self.push(&cancel.user_data(user_data(Kind::Ignored, id)))
    }

    /// What is next for a connection: send, receive or close.
    fn go_on(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        if !connection.offered && !connection.waiting && !connection.broken {
            if let Some(chunk) = connection.out.front().copied() {
                connection.offered = true;
                self.offers.push(id);
                let data = self.buffers(chunk).data(chunk.id, chunk.len);
                let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
                let send = opcode::Send::new(Fixed(id), data.as_ptr(), chunk.len)
                    .flags(flags)
                    .build();
                self.push(
                    &send
                        .flags(Flags::SKIP_SUCCESS)
                        .user_data(user_data(Kind::Unsent, id)),
                )?;
            } else if !connection.next.is_empty() {
                connection.rest = std::mem::take(&mut connection.next);
                connection.rest_sent = 0;
                self.wait_to_send(id)?;
            }
        }
        let connection = &self.connections[id as usize];
        self.hurry |= connection.offered && (connection.ended || connection.out.len() > 1);
        let idle = !connection.armed && !connection.offered && !connection.waiting;
        if connection.ended {
            return if idle { self.close(id) } else { Ok(()) };
        }
        // Bulk is received one ahead at most: a peer that does not read is not read from.
        if !connection.armed && !connection.waiting && connection.out.len() < 2 {
            self.arm(id)?;
        }
        Ok(())
    }

    fn buffers(&mut self, chunk: Chunk) -> &mut Buffers {
        if chunk.large { self.large } else { self.small }
    }

    /// A send that was not to wait has been submitted: it has gone out whole, unless its completion said
    /// otherwise.
    fn settle(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.offered = false;
        let unsent = connection.unsent.take();
        let Some(chunk) = connection.out.pop_front() else {
            return Ok(());
        };
        let Some(result) = unsent else {
            self.buffers(chunk).give_back(chunk.id);
            return self.go_on(id);
        };
        if result < 0 && !matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) {
            self.buffers(chunk).give_back(chunk.id);
            return self.break_off(id);
        }
        self.spill(id, chunk, result.max(0) as usize);
        while let Some(chunk) = self.connections[id as usize].out.pop_front() {
            self.spill(id, chunk, 0);
        }
        self.go_on(id)
    }

    /// Copies what is left of a chunk to the connection and hands the buffer back.
    fn spill(&mut self, id: u32, chunk: Chunk, sent: usize) {
        let buffers = if chunk.large {
            &mut *self.large
        } else {
            &mut *self.small
        };
        self.connections[id as usize]
            .next
            .extend_from_slice(&buffers.data(chunk.id, chunk.len)[sent..]);
        buffers.give_back(chunk.id);
    }

    fn wait_to_send(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.waiting = true;
        let rest = &connection.rest[connection.rest_sent..];
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let send = opcode::Send::new(Fixed(id), rest.as_ptr(), rest.len() as u32)
            .flags(flags)
            .build();
        self.push(&send.user_data(user_data(Kind::Sent, id)))
    }

    fn sent(&mut self, id: u32, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.waiting = false;
        if result < 0 {
            return self.break_off(id);
        }
        connection.rest_sent += result.unsigned_abs() as usize;
        if connection.rest_sent < connection.rest.len() {
            return self.wait_to_send(id);
        }
        connection.rest = Vec::new();
        self.go_on(id)
    }

    /// Nothing more can be sent, so nothing more is received.
    fn break_off(&mut self, id: u32) -> io::Result<()> {
        self.connections[id as usize].broken = true;
        self.end(id)
    }

    /// Nothing more is received; what is left to be sent still goes.
    fn end(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.ended = true;
        if connection.armed {
            let cancel = opcode::AsyncCancel::new(user_data(Kind::Receive, id)).build();
            self.push(&cancel.user_data(user_data(Kind::Ignored, id)))?;
        }
        self.go_on(id)
    }

    /// Nothing of the connection is with the kernel: its slot can go to the next one.
    fn close(&mut self, id: u32) -> io::Result<()> {
        let connection = std::mem::take(&mut self.connections[id as usize]);
        for chunk in connection.out {
            self.buffers(chunk).give_back(chunk.id);
        }
        let close = opcode::Close::new(Fixed(id)).build();
        self.push(&close.user_data(user_data(Kind::Ignored, id)))
    }
}
