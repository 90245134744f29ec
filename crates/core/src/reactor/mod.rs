//! The reactor: the engine, the ops in flight, the ready queue, the timers and the turn. It knows Python's objects, not
//! asyncio.

pub mod clock;
pub mod fds;
pub mod handle;
pub mod io;
pub mod operation;
pub mod ready;
pub mod scheduler;
pub mod slots;
pub mod soon;
pub mod spare;
pub mod stats;
pub mod timers;
pub mod watch;
pub mod work;
