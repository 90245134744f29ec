//! Where a completion goes: an object, and how its class takes completions. The reactor does not know the classes. Each owner
//! of ops has a table, a `static` of type [`Completes`], in its own file.

use std::os::fd::RawFd;

use proact_driver::Completion;
use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::py::method::Once;
use crate::reactor::ready::Queue;

/// A completion on its way to the owner of its op.
pub struct Arrived<'a, 'py> {
    pub completion: Completion,
    /// The received bytes, if the engine chose the buffer.
    pub data: Option<Bound<'py, PyBytes>>,
    /// The ready queue, for an owner that acts after what was scheduled before.
    pub ready: &'a Queue,
}

/// How the objects of a class take the completions of one kind of op.
#[repr(C)]
pub struct Completes<T: 'static = PyAny> {
    complete: for<'py> fn(&Bound<'py, T>, Arrived<'_, 'py>) -> PyResult<()>,
    /// The fd that belongs to the object, if any.
    owns: fn(&Bound<'_, T>) -> Option<RawFd>,
    /// Whether the op in flight uses this fd as the fd of another object than this one.
    is_stale: fn(&Bound<'_, T>, RawFd, *mut ffi::PyObject) -> bool,
    /// Whether `complete` may run the program's code. Debug mode then reports how long it took.
    calls_program: bool,
    /// Whether nothing waits for the op in flight at this moment.
    is_in_vain: fn(&Bound<'_, T>) -> bool,
    /// Takes a completion in place of `complete`, and returns the end of the wait that it ends, if any.
    ends: Option<Ends<T>>,
}

type Ends<T> = for<'py> fn(&Bound<'py, T>, &Completion) -> PyResult<Option<Once>>;

impl<T: PyClass> Completes<T> {
    pub const fn new(
        complete: for<'py> fn(&Bound<'py, T>, Arrived<'_, 'py>) -> PyResult<()>,
    ) -> Completes<T> {
        Completes {
            complete,
            owns: |_| None,
            is_stale: |_, _, _| false,
            calls_program: false,
            is_in_vain: |_| false,
            ends: None,
        }
    }

    /// A completion does no more than to end the wait of a greenlet. So one greenlet that begins to wait can go on with the next.
    pub const fn that_ends(mut self, ends: Ends<T>) -> Completes<T> {
        self.ends = Some(ends);
        self
    }

    /// Sometimes nothing waits for the op: it keeps no program from a deadlock.
    pub const fn that_may_be_in_vain(mut self, is_in_vain: fn(&Bound<'_, T>) -> bool) -> Completes<T> {
        self.is_in_vain = is_in_vain;
        self
    }

    pub const fn that_calls_the_program(mut self) -> Completes<T> {
        self.calls_program = true;
        self
    }

    /// The owner is a transport, which owns its fd.
    pub const fn that_owns(mut self, owns: fn(&Bound<'_, T>) -> Option<RawFd>) -> Completes<T> {
        self.owns = owns;
        self.that_calls_the_program()
    }

    /// The owner uses the fd of an object of the program's, which the program may close meanwhile.
    pub const fn that_borrows(
        mut self,
        is_stale: fn(&Bound<'_, T>, RawFd, *mut ffi::PyObject) -> bool,
    ) -> Completes<T> {
        self.is_stale = is_stale;
        self
    }
}

/// The owner of an op. The reference keeps the op's buffers and fd alive.
pub struct Target {
    /// `None`: nobody waits for the completion (of a close).
    object: Option<Py<PyAny>>,
    how: &'static Completes,
}

static NOBODY: Completes = Completes {
    complete: |_, _| Ok(()),
    owns: |_| None,
    is_stale: |_, _, _| false,
    calls_program: false,
    is_in_vain: |_| false,
    ends: None,
};

impl Target {
    #[inline]
    pub fn new<T: PyClass>(object: Py<T>, how: &'static Completes<T>) -> Target {
        Target {
            object: Some(object.into_any()),
            // SAFETY: the layout is C's, and its functions differ in what a reference points at, so that they have one ABI
            // (https://doc.rust-lang.org/std/primitive.fn.html#abi-compatibility). They are only ever given the object beside
            // the table, which is of their class.
            how: unsafe { &*std::ptr::from_ref(how).cast::<Completes>() },
        }
    }

    pub fn nobody() -> Target {
        Target {
            object: None,
            how: &NOBODY,
        }
    }

    #[inline]
    pub fn complete<'py>(&self, py: Python<'py>, arrived: Arrived<'_, 'py>) -> PyResult<()> {
        match &self.object {
            Some(object) => (self.how.complete)(object.bind(py), arrived),
            None => Ok(()),
        }
    }

    /// Whether [`Target::end`] takes its completions.
    #[inline]
    pub fn ends(&self) -> bool {
        self.how.ends.is_some()
    }

    /// As [`Target::complete`], but does not end the wait that the completion ends, and returns what would.
    #[inline]
    pub fn end(&self, py: Python<'_>, completion: &Completion) -> PyResult<Option<Once>> {
        match (&self.object, self.how.ends) {
            (Some(object), Some(ends)) => ends(object.bind(py), completion),
            _ => Ok(None),
        }
    }

    /// The owner, if its completions may run the program's code at once, not in a callback.
    pub fn calls_program<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyAny>> {
        let object = self.object()?.bind(py);
        self.how.calls_program.then_some(object)
    }

    pub fn object(&self) -> Option<&Py<PyAny>> {
        self.object.as_ref()
    }

    pub fn owns(&self, py: Python<'_>, fd: RawFd) -> bool {
        let owned = self.object().and_then(|object| (self.how.owns)(object.bind(py)));
        owned == Some(fd)
    }

    pub fn is_stale(&self, py: Python<'_>, fd: RawFd, used_by: *mut ffi::PyObject) -> bool {
        self.object()
            .is_some_and(|object| (self.how.is_stale)(object.bind(py), fd, used_by))
    }

    pub fn is_in_vain(&self, py: Python<'_>) -> bool {
        self.object()
            .is_some_and(|object| (self.how.is_in_vain)(object.bind(py)))
    }

    #[inline]
    pub fn clone_ref(&self, py: Python<'_>) -> Target {
        Target {
            object: self.object.as_ref().map(|object| object.clone_ref(py)),
            how: self.how,
        }
    }
}
