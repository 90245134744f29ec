//! The kinds of watchers that have methods of their own, and the loop's methods that make watchers.

use std::os::fd::RawFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::hub_loop::GeventLoop;
use super::polls::Poll;
use super::watcher::{GeventWatcher, Kind, Moment, READ, WRITE};
use crate::py::errno::os_error;
use crate::py::make::{Float, Text, py_error};
use crate::reactor::clock::nanoseconds;

/// Watches an fd.
#[pyclass(frozen, extends = GeventWatcher, module = "proact._core")]
pub struct GeventIo;

/// Calls back after a time, and then again and again if it repeats.
#[pyclass(frozen, extends = GeventWatcher, module = "proact._core")]
pub struct GeventTimer;

/// Calls back after `send`, which any thread may call.
#[pyclass(frozen, extends = GeventWatcher, module = "proact._core")]
pub struct GeventAsync;

/// libev's flag of a watcher whose fd was set since it was started last. Programs see it in `events`.
const FD_WAS_SET: u32 = 0x80;

fn check_fd(fd: RawFd) -> PyResult<()> {
    if fd < 0 {
        return Err(py_error::<PyValueError>(format!("fd must be non-negative: {fd}")));
    }
    // SAFETY: F_GETFD only reads the fd table.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(os_error(-libc::EBADF));
    }
    Ok(())
}

fn check_events(events: u32) -> PyResult<u32> {
    if events & !(READ | WRITE | FD_WAS_SET) != 0 {
        return Err(py_error::<PyValueError>(format!("illegal event mask: {events}")));
    }
    Ok(events & (READ | WRITE))
}

impl GeventIo {
    /// Changes fd and events of a watcher that is not active.
    fn set(slf: &Bound<'_, Self>, change: impl FnOnce(&mut RawFd, &mut u32)) -> PyResult<()> {
        let mut held = slf.as_super().get().held.lock();
        if held.active {
            drop(held);
            return Err(py_error::<PyValueError>("not while active"));
        }
        let mut old = [None, None];
        if let Kind::Io {
            fd,
            events,
            fresh,
            polls,
            ..
        } = &mut held.kind
        {
            change(fd, events);
            *fresh = READ | WRITE;
            old = std::mem::take(polls);
        }
        drop(held);
        drop(old);
        Ok(())
    }
}

#[pymethods]
impl GeventIo {
    /// `pass_events`: the callback gets the events that have come as its first argument.
    #[pyo3(signature = (callback, *args, pass_events = false))]
    fn start(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        pass_events: bool,
    ) -> PyResult<()> {
        GeventWatcher::begin(slf.as_super(), callback, args, pass_events)
    }

    /// Stops, and makes the kernel let go of the file, unless it is watched for another watcher: the program will close it.
    fn close(slf: &Bound<'_, Self>) {
        let py = slf.py();
        let base = slf.as_super();
        GeventWatcher::end(base);
        let polls = match &mut base.get().held.lock().kind {
            Kind::Io { polls, fresh, .. } => {
                *fresh = READ | WRITE;
                std::mem::take(polls)
            }
            _ => return,
        };
        if let Ok(scheduler) = base.get().owner.get().scheduler(py) {
            for poll in polls.iter().flatten() {
                Poll::let_go(poll.bind(py), scheduler.get());
            }
        }
    }

    /// The program uses the fd, too, from now on.
    fn _lend(slf: &Bound<'_, Self>) {
        let py = slf.py();
        let base = slf.as_super().get();
        let mut known = Vec::new();
        if let Kind::Io { polls, lent, .. } = &mut base.held.lock().kind
            && !std::mem::replace(lent, true)
        {
            known.extend(polls.iter().flatten().map(|poll| poll.clone_ref(py)));
        }
        for poll in known {
            Poll::abandon(poll.bind(py));
        }
    }

    #[getter]
    fn fd(slf: &Bound<'_, Self>) -> RawFd {
        match slf.as_super().get().held.lock().kind {
            Kind::Io { fd, .. } => fd,
            _ => -1,
        }
    }

    #[setter]
    fn set_fd(slf: &Bound<'_, Self>, fd: RawFd) -> PyResult<()> {
        check_fd(fd)?;
        GeventIo::set(slf, |known, _| *known = fd)
    }

    #[getter]
    fn events(slf: &Bound<'_, Self>) -> u32 {
        match slf.as_super().get().held.lock().kind {
            Kind::Io { events, .. } => events,
            _ => 0,
        }
    }

    #[setter]
    fn set_events(slf: &Bound<'_, Self>, events: u32) -> PyResult<()> {
        let events = check_events(events)?;
        GeventIo::set(slf, |_, known| *known = events)
    }

    #[getter]
    fn events_str(slf: &Bound<'_, Self>) -> Text<&'static str> {
        Text(match Self::events(slf) {
            READ => "READ",
            WRITE => "WRITE",
            0 => "",
            _ => "READ|WRITE",
        })
    }

    fn _format(slf: &Bound<'_, Self>) -> Text<String> {
        Text(format!(
            " fd={} events={}",
            Self::fd(slf),
            Self::events_str(slf).0
        ))
    }
}

impl GeventTimer {
    /// Starts a timer that is not active; one that is only gets the new callback.
    fn begin(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        update: Option<bool>,
        again: bool,
    ) -> PyResult<()> {
        let base = slf.as_super();
        let owner = base.get().owner.get();
        // Without a word from the program the time is that of this moment, too: to read the clock costs little.
        let now = if update == Some(false) {
            owner.held.lock().now
        } else {
            owner.read_clock(slf.py())
        };
        let mut held = base.get().held.lock();
        let is_active = held.active;
        if let Kind::Timer {
            after, repeat, at, ..
        } = &mut held.kind
            && !is_active
        {
            *at = now.saturating_add(if again { *repeat } else { *after });
        }
        drop(held);
        GeventWatcher::begin(base, callback, args, false)
    }
}

#[pymethods]
impl GeventTimer {
    /// `update`: whether the time is counted from this moment, and not from the time of the turn.
    #[pyo3(signature = (callback, *args, update = None))]
    fn start(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        update: Option<bool>,
    ) -> PyResult<()> {
        GeventTimer::begin(slf, callback, args, update, false)
    }

    /// Starts anew, whether it is active or not, for the time after which it repeats. A timer that does not repeat is stopped.
    #[pyo3(signature = (callback, *args, update = None))]
    fn again(
        slf: &Bound<'_, Self>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        update: Option<bool>,
    ) -> PyResult<()> {
        let base = slf.as_super();
        GeventWatcher::deactivate(base);
        let repeats = matches!(base.get().held.lock().kind, Kind::Timer { repeat, .. } if repeat > 0);
        if repeats {
            return GeventTimer::begin(slf, callback, args, update, true);
        }
        GeventWatcher::end(base);
        Ok(())
    }

    /// As `stop`: directly, because each timeout closes its timer.
    fn close(slf: &Bound<'_, Self>) {
        GeventWatcher::end(slf.as_super());
    }

    /// When it is due, in seconds of the loop's clock.
    #[getter]
    fn at(slf: &Bound<'_, Self>) -> Float {
        match slf.as_super().get().held.lock().kind {
            Kind::Timer { at, .. } => Float(at as f64 / 1e9),
            _ => Float(0.0),
        }
    }
}

#[pymethods]
impl GeventAsync {
    /// Has the callback called, by the loop's thread. Any thread may send.
    fn send(slf: &Bound<'_, Self>) {
        let base = slf.as_super();
        let owner = base.get().owner.get();
        let mut held = owner.held.lock();
        if held.sent.iter().any(|sent| sent.is(base)) {
            return;
        }
        held.sent.push(base.clone().unbind());
        drop(held);
        owner.wake(slf.py());
    }

    /// `send`, as something that is called with one argument.
    #[pyo3(signature = (_ignored, /))]
    fn send_ignoring_arg(slf: &Bound<'_, Self>, _ignored: &Bound<'_, PyAny>) {
        GeventAsync::send(slf);
    }

    /// Whether something was sent, for which the callback was not called yet.
    #[getter]
    fn pending(slf: &Bound<'_, Self>) -> bool {
        let base = slf.as_super();
        let was_sent = base
            .get()
            .owner
            .get()
            .held
            .lock()
            .sent
            .iter()
            .any(|sent| sent.is(base));
        was_sent || base.get().held.lock().pending != 0
    }
}

impl GeventLoop {
    fn at(
        slf: &Bound<'_, Self>,
        moment: Moment,
        counts: bool,
        priority: Option<i64>,
    ) -> PyResult<Py<GeventWatcher>> {
        let watcher = GeventWatcher::new(slf, Kind::Moment(moment), counts, priority)?;
        Py::new(slf.py(), watcher)
    }
}

#[pymethods]
impl GeventLoop {
    /// Watches an fd for `events`: 1 to read, 2 to write.
    #[pyo3(signature = (fd, events, r#ref = true, priority = None))]
    fn io(
        slf: &Bound<'_, Self>,
        fd: RawFd,
        events: u32,
        r#ref: bool,
        priority: Option<i64>,
    ) -> PyResult<Py<GeventIo>> {
        check_fd(fd)?;
        let kind = Kind::Io {
            fd,
            events: check_events(events)?,
            fresh: READ | WRITE,
            polls: [None, None],
            limit: None,
            lent: false,
        };
        let base = GeventWatcher::new(slf, kind, r#ref, priority)?;
        Py::new(slf.py(), PyClassInitializer::from(base).add_subclass(GeventIo))
    }

    /// Calls back after `after` seconds, and from then on every `repeat` seconds unless that is 0.
    #[pyo3(signature = (after, repeat = 0.0, r#ref = true, priority = None))]
    fn timer(
        slf: &Bound<'_, Self>,
        after: f64,
        repeat: f64,
        r#ref: bool,
        priority: Option<i64>,
    ) -> PyResult<Py<GeventTimer>> {
        if repeat < 0.0 {
            return Err(py_error::<PyValueError>(format!(
                "repeat must be positive or zero: {repeat}"
            )));
        }
        let kind = Kind::Timer {
            after: nanoseconds(after),
            repeat: nanoseconds(repeat),
            at: 0,
            order: 0,
        };
        let base = GeventWatcher::new(slf, kind, r#ref, priority)?;
        Py::new(slf.py(), PyClassInitializer::from(base).add_subclass(GeventTimer))
    }

    /// Calls back when something was sent to it.
    #[pyo3(signature = (r#ref = true, priority = None))]
    fn async_(slf: &Bound<'_, Self>, r#ref: bool, priority: Option<i64>) -> PyResult<Py<GeventAsync>> {
        let base = GeventWatcher::new(slf, Kind::Fed("async_"), r#ref, priority)?;
        Py::new(slf.py(), PyClassInitializer::from(base).add_subclass(GeventAsync))
    }

    /// Calls back in each turn in which nothing else happens. The loop does not wait meanwhile.
    #[pyo3(signature = (r#ref = true, priority = None))]
    fn idle(slf: &Bound<'_, Self>, r#ref: bool, priority: Option<i64>) -> PyResult<Py<GeventWatcher>> {
        Self::at(slf, Moment::Idle, r#ref, priority)
    }

    /// Calls back before the loop waits.
    #[pyo3(signature = (r#ref = true, priority = None))]
    fn prepare(slf: &Bound<'_, Self>, r#ref: bool, priority: Option<i64>) -> PyResult<Py<GeventWatcher>> {
        Self::at(slf, Moment::Prepare, r#ref, priority)
    }

    /// Calls back after the loop has waited.
    #[pyo3(signature = (r#ref = true, priority = None))]
    fn check(slf: &Bound<'_, Self>, r#ref: bool, priority: Option<i64>) -> PyResult<Py<GeventWatcher>> {
        Self::at(slf, Moment::Check, r#ref, priority)
    }

    /// Calls back in a forked child.
    #[pyo3(signature = (r#ref = true, priority = None))]
    fn fork(slf: &Bound<'_, Self>, r#ref: bool, priority: Option<i64>) -> PyResult<Py<GeventWatcher>> {
        Self::at(slf, Moment::Fork, r#ref, priority)
    }
}
