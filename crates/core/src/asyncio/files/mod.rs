//! Files: what `proact.fs` asks of the loop. There are two kinds of call. Those of `tried.rs` answer at once with what the kernel
//! can do without waiting for a disk, or with None. Those of `waited.rs` are awaitable operations: a ring carries them out, and
//! a thread of the pool on the other engines.

mod budget;
mod paths;
mod tried;
mod waited;
