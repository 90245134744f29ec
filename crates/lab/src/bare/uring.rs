//! The ceiling of a proactor: one io_uring, one thread, one system call per turn.
//!
//! How it works. (Figures: Linux 6.18, two cores that other processes used too, `examples/measure.rs` and variants of
//! it.)
//!
//! - A connection has one multishot receive, which takes its buffers from a small shared ring. An echo is a `send`
//!   out of the buffer that the bytes arrived in. So no byte is copied, and nothing but the `send` is queued.
//! - Sends are queued with MSG_DONTWAIT and CQE_SKIP_SUCCESS. They run during their submission, so once
//!   `io_uring_enter` has returned, a send without a completion *has* sent everything and its buffer is free. The turn
//!   sleeps until there is input, and successful sends wake it never: with one connection 1.0 system calls per
//!   message instead of 2.0, with 100 connections 0.12 instead of 0.18. The CPU time with 100 connections was the same
//!   within the noise.
//! - A send that does not send everything is the exception. Its rest is copied to the connection's own memory, from
//!   where an ordinary send waits for room. So a peer that does not read never holds shared buffers across turns.
//! - A connection that fills a small buffer and has more bytes waiting moves bulk: it changes to single receives into
//!   large buffers, and back after a run of small ones.
//! - An answer that is not an echo is sent like the rest of a send: it is in the connection's memory anyway.
//! - Accepted sockets exist only in the ring's own table (direct descriptors). No difference to plain fds was
//!   measurable.
//!
//! Its limit: at 64 KiB and 100 connections it took about 9 % more CPU per message than `serve_epoll`.

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
use ring::{Mode, ProvidedBuffers};

/// The sizes of everything that belongs to the ring.
#[derive(Clone, Copy)]
struct Shape {
    /// How many submissions fit between two system calls. The completion queue is four times as large, because it has
    /// to hold a completion of each send that did not send everything, and a multishot receive posts any number of
    /// completions.
    entries: u32,
    /// The number and the size of the small buffers. One holds a usual request, all together hold what one turn can
    /// bring. 64 to 1,024 buffers of 2 to 16 KiB did not differ beyond the noise at 1 KiB per message.
    small: (u16, u32),
    /// The number and the size of the large buffers. 8 and 32 buffers did not differ at 64 KiB per message.
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

/// After this many receives in a row that fit a small buffer, a connection no longer moves bulk.
const SMALL_RUN: u8 = 32;
/// How many unsent bytes a connection may have before its multishot receive is cancelled.
const BACKLOG: usize = 64 * 1024;

struct Server<'a, S> {
    submitter: Submitter<'a>,
    sq: SubmissionQueue<'a>,
    listener: OwnedFd,
    small: &'a mut ProvidedBuffers,
    large: &'a mut ProvidedBuffers,
    connections: &'a mut Vec<Connection<S>>,
    /// A connection can go on as soon as this turn's sends have been submitted, so the next wait must not sleep.
    hurry: bool,
    /// The connections with a send that does not wait in this turn's submission.
    offers: Vec<u32>,
    /// The connections that found no buffer, and wait until one is given back.
    starved: VecDeque<u32>,
    accepting: bool,
    interval: Box<Timespec>,
}

/// Serves `S` on `listener` with io_uring, on the calling thread, until `stop` is set. Needs Linux 6.0
/// (multishot receive).
///
/// # Errors
/// The errors of making the ring (`ENOSYS`, `EPERM`, `EINVAL` on older kernels), and errors of the ring or of the
/// listening socket. An error of one connection only closes that connection.
pub fn serve_uring<S: Session>(listener: OwnedFd, stop: &AtomicBool) -> io::Result<()> {
    serve::<S>(listener, stop, SHAPE)
}

fn serve<S: Session>(listener: OwnedFd, stop: &AtomicBool, shape: Shape) -> io::Result<()> {
    sockets::set_nodelay(listener.as_raw_fd())?;
    sockets::set_nonblocking(listener.as_raw_fd(), false)?;
    // Declare the ring last, so that it is dropped first: the kernel may write to the others until the ring has
    // ended.
    let mut connections = Vec::new();
    let (mut small, mut large);
    let mut ring = ring::ring(shape.entries, shape.mode)?;
    ring.submitter().register_files_sparse(ring::table_size())?;
    small = ProvidedBuffers::register(&ring.submitter(), 0, shape.small.0, shape.small.1)?;
    large = ProvidedBuffers::register(&ring.submitter(), 1, shape.large.0, shape.large.1)?;
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
        // Tell the kernel that the completions have been fetched. Otherwise it still counts them, and the next wait
        // returns at once.
        cq.sync();
        outcome = submitted.and_then(|all| server.turn(&batch, all));
        batch.clear();
    }
    // Dropping the ring would also cancel the operations in flight, but later and from another thread.
    drop(
        server
            .submitter
            .register_sync_cancel(Some(Timespec::from(TICK)), CancelBuilder::any()),
    );
    outcome
}

impl<S: Session> Server<'_, S> {
    /// Makes the turn's system call: submits the queued entries and waits for a completion. Returns false if the
    /// kernel did not take all entries, because completions must be fetched first.
    fn enter(&mut self) -> io::Result<bool> {
        let want = usize::from(!std::mem::take(&mut self.hurry));
        loop {
            self.sq.sync();
            let answer = self.submitter.submit_and_wait(want);
            self.sq.sync();
            match answer.map_err(|error| (error.raw_os_error(), error)) {
                Err((Some(libc::EBUSY), _)) => return Ok(self.sq.is_empty()),
                // EAGAIN: the kernel has no memory for a request now (io_uring_enter(2)).
                Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN), _)) if self.sq.is_empty() => return Ok(true),
                Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN), _)) => {}
                Err((_, error)) => return Err(error),
            }
        }
    }

    fn push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: the entry points to memory that stays: buffers of the rings, the `rest` of a connection, which is
        // kept until the send's completion, the boxed interval, or a static.
        while unsafe { self.sq.push(entry) }.is_err() {
            self.sq.sync();
            match self.submitter.submit() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.sq.sync(),
            }
        }
        Ok(())
    }

    /// Handles a batch of completions. Handles the sends first, so that echoes keep the order of their bytes.
    /// `submitted`: the kernel has taken every entry, so all sends have run.
    fn turn(&mut self, batch: &[(u64, i32, u32)], submitted: bool) -> io::Result<()> {
        for &(data, result, _) in batch {
            if data >> 32 == Kind::Unsent as u64 {
                self.connections[data as u32 as usize].unsent = Some(result);
            }
        }
        if submitted {
            let mut offers = std::mem::take(&mut self.offers);
            for connection in offers.drain(..) {
                self.finish_send(connection)?;
            }
            // `finish_send` may have queued further sends. Swap the vectors to keep the allocation.
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
            // The connection may have a receive by now, or its slot may have a new owner.
            if self.arm(connection)? {
                buffers -= 1;
            }
        }
        // The new receives and the sends that hold buffers may bring no completion, so do not sleep while connections
        // wait for a buffer.
        self.hurry |= !self.starved.is_empty();
        self.small.publish();
        self.large.publish();
        Ok(())
    }

    /// Runs twenty times per second, so that `stop` is checked, and accepts again if there were no fds.
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
        // After an error the next tick accepts again.
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

    /// Sets TCP_NODELAY by an operation of the ring, because the connection may have been in the backlog before the
    /// listening socket had the option, and it has no fd for `setsockopt`. Before Linux 6.7 the ring has no such
    /// operation, and then only those early connections go without.
    fn set_nodelay(&mut self, id: u32) -> io::Result<()> {
        static ON: libc::c_int = 1;
        let (level, name) = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
        let size = size_of::<libc::c_int>() as u32;
        let set = opcode::SetSockOpt::new(Fixed(id), level, name, (&raw const ON).cast(), size).build();
        self.push(&set.user_data(user_data(Kind::Ignored, id)))
    }

    /// Starts a receive: multishot, or a single one for bulk. Returns false if the connection needs none.
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
                // The multishot receive was cancelled for the change to bulk.
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

    /// Queues the session's answer to a chunk, and gives the buffer back.
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

    /// Cancels the multishot receive. The bytes that it has received still arrive.
    fn leave(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.small_run = 0;
        if connection.bulk || std::mem::replace(&mut connection.leaving, true) || !connection.armed {
            return Ok(());
        }
        let cancel = opcode::AsyncCancel::new(user_data(Kind::Receive, id)).build();
        self.push(&cancel.user_data(user_data(Kind::Ignored, id)))
    }

    /// Starts the next operation of a connection: send, receive or close.
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
        // Receive at most one bulk chunk ahead, so that the server stops reading from a peer that does not read.
        if !connection.armed && !connection.waiting && connection.out.len() < 2 {
            self.arm(id)?;
        }
        Ok(())
    }

    fn buffers(&mut self, chunk: Chunk) -> &mut ProvidedBuffers {
        if chunk.large { self.large } else { self.small }
    }

    /// Finishes a send that does not wait, after its submission: it has sent everything, unless its completion says
    /// otherwise.
    fn finish_send(&mut self, id: u32) -> io::Result<()> {
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

    /// Copies the rest of a chunk to the connection's memory, and gives the buffer back.
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

    /// Stops receiving, because the connection can't send any more.
    fn break_off(&mut self, id: u32) -> io::Result<()> {
        self.connections[id as usize].broken = true;
        self.end(id)
    }

    /// Stops receiving. The queued bytes are still sent.
    fn end(&mut self, id: u32) -> io::Result<()> {
        let connection = &mut self.connections[id as usize];
        connection.ended = true;
        if connection.armed {
            let cancel = opcode::AsyncCancel::new(user_data(Kind::Receive, id)).build();
            self.push(&cancel.user_data(user_data(Kind::Ignored, id)))?;
        }
        self.go_on(id)
    }

    /// Closes a connection that has no operation with the kernel. Its slot can go to the next connection.
    fn close(&mut self, id: u32) -> io::Result<()> {
        let connection = std::mem::take(&mut self.connections[id as usize]);
        for chunk in connection.out {
            self.buffers(chunk).give_back(chunk.id);
        }
        let close = opcode::Close::new(Fixed(id)).build();
        self.push(&close.user_data(user_data(Kind::Ignored, id)))
    }
}
