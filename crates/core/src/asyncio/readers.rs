//! `add_reader` and `add_writer`: level-triggered callbacks for file descriptors of the program's.

use std::os::fd::RawFd;

use proact_driver::{Call, Op, ops};
use pyo3::prelude::*;

use crate::py::call::current_context;
use crate::py::descriptor::descriptor;
use crate::py::errno::os_error;
use crate::py::make::name;
use crate::reactor::fds::Side;
use crate::reactor::handle::{Callback, Handle};
use crate::reactor::io::Sent;
use crate::reactor::scheduler::Scheduler;
use crate::reactor::target::Target;
use crate::reactor::watch::{WATCHES, Watch};

/// # Errors
/// `EBADF` for a number that is no open file, `EPERM` for files and directories: as epoll. A ring would report the first only
/// in the next turn, and the second in every turn.
fn check_can_wait(scheduler: &Scheduler, fd: RawFd) -> PyResult<()> {
    let kind = scheduler.call(Call::FileType { fd })?;
    match kind as u32 {
        _ if kind < 0 => Err(os_error(-libc::EBADF)),
        libc::S_IFREG | libc::S_IFDIR => Err(os_error(-libc::EPERM)),
        _ => Ok(()),
    }
}

impl Scheduler {
    /// Ends a watch that was removed: cancels its handle. True if it had one.
    fn end_watch(&self, py: Python<'_>, watch: &Py<Watch>) -> PyResult<bool> {
        let Some(handle) = watch.get().end() else {
            return Ok(false);
        };
        handle.object().call_method0(py, name!("cancel"))?;
        Ok(true)
    }
}

#[pymethods]
impl Scheduler {
    #[pyo3(name = "_watch")]
    fn watch(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        write: bool,
        handle: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let (file, fd) = (fd, descriptor(fd)?);
        let side = Side::of(write);
        let this = slf.get();
        this.check_closed()?;
        let _claim = this.claim()?;
        this.check_not_a_transport(py, fd)?;
        check_can_wait(slf.get(), fd)?;
        let callback = match handle.cast_into::<Handle>() {
            Ok(handle) => Callback::Native(handle.unbind()),
            Err(error) => Callback::Debug(error.into_inner().unbind()),
        };
        let watch = Watch::create(py, callback, Some(file.clone().unbind()))?;
        let target = watch.clone_ref(py);
        let added = {
            let (mut io, mut readers) = (this.io.get()?, this.readers.lock());
            readers.add(&mut io, fd, side, (watch, target))
        };
        match added {
            Ok(Some(previous)) => this.end_watch(py, &previous).map(drop),
            Ok(None) => Ok(()),
            Err((error, _)) => Err(os_error(error)),
        }
    }

    /// Calls back once, when the child process of a pidfd has ended. Until then only `_close_fd` may close the pidfd.
    #[pyo3(name = "_watch_child")]
    fn watch_child(slf: &Bound<'_, Self>, pidfd: RawFd, handle: Py<Handle>) -> PyResult<()> {
        let this = slf.get();
        this.check_closed()?;
        let _claim = this.claim()?;
        let watch = Watch::create(slf.py(), Callback::Native(handle), None)?;
        let target = Target::new(watch.clone_ref(slf.py()), &WATCHES);
        // SAFETY: the op points at no memory.
        match unsafe { this.io.get()?.submit(Op::WaitId(ops::WaitId { pidfd }), target) } {
            Sent::Ready(error) if error < 0 && error != -libc::ECHILD => return Err(os_error(error)),
            Sent::Ready(_) => this.push(Watch::due(watch)),
            Sent::Pending(_) => {}
        }
        Ok(())
    }

    /// Closes an fd that the loop has watched.
    #[pyo3(name = "_close_fd")]
    fn close_fd(&self, fd: RawFd) -> PyResult<()> {
        let _claim = self.claim()?;
        self.io.get()?.close(fd).map_err(crate::py::errno::io_error)
    }

    /// Stops watching one side of an fd, or only this `watch` of it. True: it was watched, and its callback is not called any
    /// more.
    #[pyo3(name = "_unwatch", signature = (fd, write, watch = None))]
    fn unwatch(
        slf: &Bound<'_, Self>,
        fd: &Bound<'_, PyAny>,
        write: bool,
        watch: Option<Py<Watch>>,
    ) -> PyResult<bool> {
        let this = slf.get();
        if this.is_closed() || this.is_forked() {
            return Ok(false);
        }
        let py = slf.py();
        let (file, side) = (fd, Side::of(write));
        let fd = match descriptor(file) {
            Ok(fd) => fd,
            // The object is closed. Find it by identity, as asyncio's selectors do.
            Err(error) => this.readers.lock().number_of(file, side).ok_or(error)?,
        };
        if this.io.runs_elsewhere() {
            // Probably a finaliser. The callback is not called any more, and the loop's thread
            // removes the watch.
            let Some(watch) = this.readers.lock().watch(py, fd, side) else {
                return Ok(false);
            };
            let again = slf.getattr(name!("_unwatch"))?.unbind();
            // By then the number may be another file's, which the program watches.
            let args = (fd, write, watch.clone_ref(py)).into_pyobject(py)?.unbind();
            // End it first: the loop's thread may be faster than this one.
            let ended = this.end_watch(py, &watch);
            this.soon(py, again, args, current_context(py)?)?;
            this.wake();
            return ended;
        }
        let _claim = this.claim()?;
        this.check_not_a_transport(py, fd)?;
        let watch = {
            let (mut io, mut readers) = (this.io.get()?, this.readers.lock());
            if let Some(meant) = &watch
                && !readers.is(fd, side, meant)
            {
                return Ok(false);
            }
            let watch = readers.remove(&mut io, fd, side);
            if watch.is_some() {
                // Submit the cancellation now: until then the ring's poll keeps the file open, and its peer would not see a
                // close. An error shows with the next wait.
                let _ = io.driver.flush();
            }
            watch
        };
        match watch {
            Some(watch) => this.end_watch(py, &watch),
            None => Ok(false),
        }
    }
}
