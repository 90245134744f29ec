//! The reactor: the engine, the ops in flight, the ready queue, the timers and the turn. It knows Python's objects and nothing
//! of asyncio. What it needs from the loop above it asks for through `hooks.rs`.

pub mod clock;
pub mod fds;
pub mod file_work;
pub mod futures;
pub mod handle;
pub mod hooks;
pub mod hub;
pub mod io;
pub mod operation;
pub mod owned;
pub mod parking;
pub mod path_work;
pub mod ready;
pub mod scheduler;
pub mod slots;
pub mod soon;
pub mod spare;
pub mod stats;
pub mod target;
pub mod threadsafe;
pub mod timers;
#[cfg(not(Py_GIL_DISABLED))]
pub mod uncollected;
pub mod waiter;
pub mod watch;
pub mod work;
