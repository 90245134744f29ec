//! An operation on a file: its op, and the result that no step has taken yet.

use pyo3::prelude::*;

use super::{OPERATIONS, Operation, State, Step};
use crate::py::descriptor::descriptor;
use crate::reactor::file_work::{FileWork, Ways};
use crate::reactor::io::Sent;
use crate::reactor::target::Target;
use crate::reactor::work::Work;

/// The result of a file's op. If no step takes it, an fd in it is closed.
pub(super) struct Ended {
    work: Option<FileWork>,
    result: i32,
}

impl Ended {
    pub(super) fn new(work: FileWork, result: i32) -> Ended {
        Ended {
            work: Some(work),
            result,
        }
    }

    pub(super) fn take(mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.work.take() {
            Some(work) => work.outcome(py, self.result),
            None => Ok(py.None()),
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.discard(self.result);
        }
    }
}

impl Operation {
    pub(super) fn begin_file(slf: &Bound<'_, Self>, work: FileWork) -> PyResult<Step> {
        let (py, this) = (slf.py(), slf.get());
        let scheduler = this.scheduler.get();
        scheduler.check_closed()?;
        let fd = if work.uses_fd() {
            descriptor(this.object.bind(py))?
        } else {
            -1
        };
        let waiter = this.waiter(py)?;
        let yields = waiter.yields(py);
        let target = Target::new(slf.clone().unbind(), &OPERATIONS);
        let result = {
            let (mut state, mut io) = (this.state.lock(), scheduler.io.get()?);
            let pooled = io.driver.stats().pooled;
            // SAFETY: the work goes into this operation's state below and stays there until the terminal completion;
            // its memory is on the heap and does not move with it. Nothing fails in between.
            let sent = unsafe { io.submit(work.op(py, fd), target) };
            let is_pooled = io.driver.stats().pooled > pooled;
            let ways = io.shared.get::<Ways>();
            match sent {
                Sent::Pending(token) => {
                    if is_pooled {
                        ways.by_pool += 1;
                    } else {
                        ways.by_engine += 1;
                    }
                    *state = State::InFlight {
                        token,
                        fd,
                        work: Work::File(work),
                        waiter,
                    };
                    return Ok(Step::Waits(yields));
                }
                Sent::Ready(result) => {
                    ways.at_once += 1;
                    result
                }
            }
        };
        work.outcome(py, result).map(Step::Finished)
    }
}
