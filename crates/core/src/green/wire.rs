//! A green socket's tie to the loop: whether its fd is readable, and which greenlets wait for that.
//!
//! A receive makes its call itself, at once if the socket may have something. Only when it found nothing does the greenlet wait,
//! and only then is the fd watched. The watch stays for the receives after it, so a connection that is read message by message
//! costs the engine no op and no system call beside the receive: of TCP, a receive that gets less than it has room for has got
//! all, and once trying has been in vain a few times, the next receive waits without a call. No byte leaves the socket but into
//! the receive that returns it: a greenlet that is killed has received nothing, and the fd may be used by other code at any time.
//!
//! ```text
//!             a greenlet waits              closed, or the number belongs to another object
//!   Unwatched ────────────────▶ Watched ────────────────────────────────────────────────────▶ Unwatched
//!       ▲                          │
//!       └──────────────────────────┘
//!   it tells again and again, and nobody receives
//! ```

use std::collections::VecDeque;
use std::os::fd::RawFd;

use proact_driver::{Call, Completion, Op, ops};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyValueError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::held::{Held, IN_A_ROW, TRIES, Told, UNHEARD};
use super::limit::Limit;
use super::sockets::end_operations;
use crate::py::buffer::Buffer;
use crate::py::cell::SharedCell;
use crate::py::errno::os_error;
use crate::py::make::py_error;
use crate::reactor::fds::Side;
use crate::reactor::hub::Hub;
use crate::reactor::io::Sent;
use crate::reactor::operation::Operation;
use crate::reactor::parking::Parking;
use crate::reactor::target::{Completes, Target};
use crate::reactor::work::{Work, send_now, socket_fd};

/// What a socket of `proact.green` keeps of the loop that it is used with.
#[pyclass(frozen, module = "proact._core")]
pub struct Wire {
    held: SharedCell<Held>,
}

static WATCHES: Completes<Wire> =
    Completes::<Wire>::new(|wire, arrived| match Wire::told(wire, &arrived.completion)? {
        Some(first) => Parking::resume_before(first, arrived.ready),
        None => Ok(()),
    })
    .that_ends(|wire, completion| Ok(Wire::told(wire, completion)?.map(Parking::end)))
    .that_borrows(|wire, fd, object| {
        let held = wire.get().held.lock();
        held.socket != object as usize && held.bound.as_ref().is_some_and(|(_, used)| *used == fd)
    })
    .that_may_be_in_vain(|wire| wire.get().held.lock().waiting.is_empty());

/// The place of one receive in the line of those that wait.
struct Place<'a, 'py> {
    wire: &'a Bound<'py, Wire>,
    parking: Option<Bound<'py, Parking>>,
    limit: Limit<'py>,
}

impl<'py> Place<'_, 'py> {
    /// Whether the socket is worth a call now: first in the line, and readable. Returns what the watch has told since the last one.
    fn may_try(&self) -> Option<Told> {
        let held = &mut *self.wire.get().held.lock();
        let may =
            self.parking.is_some() || (held.ready && held.waiting.is_empty() && held.in_a_row < IN_A_ROW);
        may.then(|| std::mem::replace(&mut held.told, Told::Nothing))
    }

    /// Waits until it is this receive's turn.
    fn wait(&mut self, hub: &Bound<'py, Hub>, fd: RawFd) -> PyResult<()> {
        let wire = self.wire.get();
        match &self.parking {
            Some(parking) => Parking::again(parking)?,
            None => {
                let parking = Parking::lend(hub)?;
                wire.held.lock().waiting.push_back(parking.clone().unbind());
                self.parking = Some(parking);
            }
        }
        let Some(parking) = &self.parking else {
            return Ok(());
        };
        if wire.takes_a_pause() {
            Parking::wake(parking)?;
        } else {
            Wire::watch(self.wire, hub, fd)?;
        }
        self.limit.begin(self.wire.py())?;
        Parking::wait(parking)?;
        let held = wire.held.lock();
        if held.waiting.iter().any(|waiting| waiting.is(parking)) {
            return Ok(());
        }
        Err(os_error(held.error))
    }
}

impl Drop for Place<'_, '_> {
    fn drop(&mut self) {
        let Some(parking) = self.parking.take() else {
            return;
        };
        let py = self.wire.py();
        let (left, next) = {
            let held = &mut *self.wire.get().held.lock();
            let index = held.waiting.iter().position(|waiting| waiting.is(&parking));
            let left = index.and_then(|index| held.waiting.remove(index));
            // The watch has told this one, and perhaps does not tell again.
            let next = held
                .waiting
                .front()
                .filter(|_| held.ready)
                .map(|next| next.clone_ref(py));
            (left, next)
        };
        drop(left);
        Parking::give_back(parking);
        if let Some(next) = next {
            // Fails only for a loop that is closed, whose greenlets have ended.
            let _ = Parking::wake(next.bind(py));
        }
    }
}

impl Wire {
    /// Whether the socket is readable, but others are to run first.
    fn takes_a_pause(&self) -> bool {
        let held = &mut *self.held.lock();
        held.ready && std::mem::take(&mut held.in_a_row) >= IN_A_ROW
    }

    /// The hub of the greenlet that runs now, and the socket's number. `None`: greenlets of another loop wait for this socket, and
    /// an operation of its own has to be made for this one.
    ///
    /// # Errors
    /// As [`Hub::scheduler_here`]; `OSError` with EBADF for a closed socket.
    #[inline]
    fn bound<'py>(
        slf: &Bound<'py, Self>,
        socket: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, Hub>, RawFd)>> {
        match Wire::known(slf)? {
            Some(known) => Ok(Some(known)),
            None => Wire::bind(slf, socket),
        }
    }

    /// As [`Wire::bound`]; `None` also if that has to be found out.
    #[inline]
    fn known<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<(Bound<'py, Hub>, RawFd)>> {
        let py = slf.py();
        let known = {
            let held = slf.get().held.lock();
            match &held.bound {
                Some((hub, fd)) if hub.get().is_within() => Some((hub.bind(py).clone(), *fd)),
                _ => None,
            }
        };
        if let Some((hub, _)) = &known {
            hub.get().scheduler(py).get().check_closed()?;
        }
        Ok(known)
    }

    #[cold]
    fn bind<'py>(
        slf: &Bound<'py, Self>,
        socket: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, Hub>, RawFd)>> {
        let (py, this) = (slf.py(), slf.get());
        let hub = Hub::of_this_greenlet(py)?;
        let scheduler = hub.get().scheduler(py).clone();
        scheduler.get().check_closed()?;
        let before = {
            let held = this.held.lock();
            match &held.bound {
                Some((known, fd)) if known.is(&hub) => return Ok(Some((hub, *fd))),
                Some((known, _)) => Some((known.clone_ref(py), held.waiting.is_empty())),
                None => None,
            }
        };
        if let Some((known, is_unused)) = before {
            let other = known.get().scheduler(py).get();
            if !is_unused && !other.is_closed() && !other.is_forked() {
                return Ok(None);
            }
            Wire::let_go(slf, -libc::EBADF);
        }
        let fd = socket_fd(&scheduler, socket, true)?;
        let protocol = scheduler.get().call(Call::SocketProtocol { fd })?;
        let held = &mut *this.held.lock();
        held.bound = Some((hub.clone().unbind(), fd));
        held.socket = socket.as_ptr() as usize;
        held.ready = true;
        held.is_tcp = protocol == libc::IPPROTO_TCP;
        held.told = Told::Nothing;
        held.tries = TRIES;
        Ok(Some((hub, fd)))
    }

    /// Has the engine watch the fd, unless it does already.
    fn watch(slf: &Bound<'_, Self>, hub: &Bound<'_, Hub>, fd: RawFd) -> PyResult<()> {
        let held = &mut *slf.get().held.lock();
        if held.watch.is_some() {
            return Ok(());
        }
        let mut io = hub.get().scheduler(slf.py()).get().io.get()?;
        let events = Side::Read.events() | ops::EDGES;
        let target = Target::new(slf.clone().unbind(), &WATCHES);
        // SAFETY: a poll points at no memory.
        match unsafe { io.submit(Op::PollMulti(ops::PollMulti { fd, events }), target) } {
            Sent::Pending(token) => {
                held.watch = Some(token);
                held.unheard = 0;
                Ok(())
            }
            Sent::Ready(error) => Err(os_error(error)),
        }
    }

    /// The watch has told something. Returns the wait that this ends.
    fn told<'py>(slf: &Bound<'py, Self>, completion: &Completion) -> PyResult<Option<Bound<'py, Parking>>> {
        let (py, this) = (slf.py(), slf.get());
        let first = {
            let held = &mut *this.held.lock();
            if held.watch != Some(completion.token) {
                // Cancelled, and perhaps submitted again since.
                return Ok(None);
            }
            if completion.is_terminal() {
                held.watch = None;
            }
            let only_bytes = completion.result == Side::Read.events() as i32;
            held.told = match held.told {
                Told::Nothing if only_bytes && !held.in_vain => Told::Bytes,
                _ => Told::More,
            };
            let was_ready = std::mem::replace(&mut held.ready, true);
            match held.waiting.front() {
                _ if completion.result < 0 => None,
                Some(first) => Some(first.clone_ref(py)),
                None if was_ready => {
                    held.unheard += 1;
                    if let Some((hub, _)) = &held.bound {
                        let mut io = hub.get().scheduler(py).get().io.get()?;
                        // A watch that tells of edges tells seldom, and it costs more to begin it anew.
                        if !io.driver.tells_edges() || held.unheard > UNHEARD {
                            held.watch.take().map(|token| io.cancel(token));
                        }
                    }
                    return Ok(None);
                }
                None => return Ok(None),
            }
        };
        if first.is_none() {
            // Another object has the number now: its operation has cancelled the watch.
            let error = match completion.result {
                error if error == -libc::ECANCELED => -libc::EBADF,
                error => error,
            };
            Wire::let_go(slf, error);
        }
        Ok(first.map(|first| first.into_bound(py)))
    }

    /// Ends the watch and what waits, with this error, and forgets the number. Any thread may call it.
    fn let_go(slf: &Bound<'_, Self>, error: i32) {
        let (py, this) = (slf.py(), slf.get());
        let (bound, watch, waiting) = {
            let held = &mut *this.held.lock();
            held.error = error;
            (
                held.bound.take(),
                held.watch.take(),
                std::mem::take(&mut held.waiting),
            )
        };
        if let (Some((hub, _)), Some(token)) = (&bound, watch) {
            hub.get().scheduler(py).get().cancel_later(token);
        }
        for parking in &waiting {
            // Fails only for a loop that is closed, whose greenlets have ended.
            let _ = Parking::wake(parking.bind(py));
        }
        drop((bound, waiting));
    }

    /// Receives by `work`, and waits for it as often as it takes.
    fn receive(slf: &Bound<'_, Self>, socket: &Bound<'_, PyAny>, mut work: Work) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let limit = Wire::limit(slf);
        let Some((hub, fd)) = Wire::bound(slf, socket)? else {
            return limit.around(py, || Operation::run(&Hub::scheduler_here(py)?, socket, work));
        };
        let scheduler = hub.get().scheduler(py);
        let mut place = Place {
            wire: slf,
            parking: None,
            limit,
        };
        loop {
            if let Some(told) = place.may_try() {
                let outcome = work.attempt(scheduler, fd)?;
                let held = &mut *slf.get().held.lock();
                if let Some(value) = outcome {
                    let is_all = told == Told::Bytes && work.is_short(value.bind(py));
                    held.received(is_all, place.parking.is_some());
                    return Ok(value);
                }
                held.ready = false;
                held.in_vain |= told != Told::Nothing;
                held.tries = held.tries.saturating_sub(1);
            }
            place.wait(&hub, fd)?;
        }
    }

    /// The greenlets that wait to receive, and the socket's number.
    pub fn waiting(&self, py: Python<'_>) -> (Vec<Py<PyAny>>, RawFd) {
        let held = self.held.lock();
        let fd = held.bound.as_ref().map_or(-1, |(_, fd)| *fd);
        let greenlets = held.waiting.iter();
        let greenlets = greenlets.filter_map(|parking| parking.get().greenlet(py));
        (greenlets.collect(), fd)
    }

    fn limit<'py>(slf: &Bound<'py, Self>) -> Limit<'py> {
        let seconds = slf.get().held.lock().seconds;
        Limit::of(seconds)
    }

    /// Sends some `bytes`, if a greenlet calls that has used the socket before, and the socket takes any at once. Returns how many.
    pub fn send(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let Ok(bytes) = data.cast_exact::<PyBytes>() else {
            return Ok(None);
        };
        let bytes = bytes.as_bytes();
        match Wire::known(slf)? {
            Some((hub, fd)) if !bytes.is_empty() => {
                let sent = send_now(hub.get().scheduler(slf.py()), fd, bytes)?;
                Ok((sent > 0).then_some(sent))
            }
            _ => Ok(None),
        }
    }
}

#[pymethods]
impl Wire {
    #[new]
    fn new() -> Wire {
        let held = Held {
            bound: None,
            socket: 0,
            watch: None,
            unheard: 0,
            ready: false,
            in_a_row: 0,
            is_tcp: false,
            told: Told::Nothing,
            in_vain: false,
            tries: 0,
            waits: 0,
            seconds: None,
            waiting: VecDeque::new(),
            error: -libc::EBADF,
        };
        Wire {
            held: SharedCell::new(held),
        }
    }

    /// How long each call waits at most, in seconds; None: for ever.
    #[setter]
    fn set_seconds(&self, seconds: Option<f64>) {
        self.held.lock().seconds = seconds;
    }

    /// Receives up to `n` bytes; empty at the end of the stream. TimeoutError if it waits for too long.
    #[pyo3(signature = (socket, n, /))]
    pub fn recv(slf: &Bound<'_, Self>, socket: &Bound<'_, PyAny>, n: isize) -> PyResult<Py<PyAny>> {
        let len = usize::try_from(n).map_err(|_| py_error::<PyValueError>("negative buffersize in recv"))?;
        Wire::receive(slf, socket, Work::Receive { len })
    }

    /// Receives into a buffer; returns the number of bytes. The buffer is not exported while the greenlet waits.
    #[pyo3(signature = (socket, buffer, /))]
    fn recv_into(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        buffer: Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        // Check now whether the buffer can be written to, and not only when bytes arrive.
        drop(Buffer::room(&buffer)?);
        let buffer = buffer.unbind();
        Wire::receive(slf, socket, Work::receive_into(buffer))
    }

    /// Sends all of `data`. TimeoutError if it waits for too long.
    #[pyo3(signature = (socket, data, /))]
    pub fn sendall(
        slf: &Bound<'_, Self>,
        socket: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let bound = Wire::bound(slf, socket)?;
        let mut sent = 0;
        if let (Some((hub, fd)), Ok(bytes)) = (&bound, data.cast_exact::<PyBytes>()) {
            // `bytes` need not be exported.
            let bytes = bytes.as_bytes();
            sent = send_now(hub.get().scheduler(py), *fd, bytes)?;
            if sent == bytes.len() {
                return Ok(());
            }
        }
        let buffer = Buffer::of(data)?;
        Wire::limit(slf).around(py, || {
            Operation::run(&Hub::scheduler_here(py)?, socket, Work::Send { buffer, sent }).map(drop)
        })
    }

    /// Ends what waits on a socket that is about to be closed: with `OSError`, EBADF. Any thread may call it.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let bound = {
            let held = slf.get().held.lock();
            held.bound.as_ref().map(|(hub, fd)| (hub.clone_ref(py), *fd))
        };
        Wire::let_go(slf, -libc::EBADF);
        match bound {
            Some((hub, fd)) => end_operations(hub.get().scheduler(py).get(), py, fd),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(held) = self.held.look() else {
            return Ok(());
        };
        if let Some((hub, _)) = &held.bound {
            visit.call(hub)?;
        }
        held.waiting.iter().try_for_each(|parking| visit.call(parking))
    }
}
