//! The native parts of proact's laboratory and benchmarks. There is no Python here.
//!
//! | module | content |
//! |---|---|
//! | [`load`] | the load: many connections on one thread, closed or open loop, every byte verified |
//! | [`bare`] | the ceilings: echo servers directly on Linux |
//! | [`syscalls`] | counts the system calls of another process |
//! | [`probe`] | accounts for the cost of each I/O call of a process |
//! | [`cpu`] | the CPU time of the calling thread |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod bare;
pub mod cpu;
pub mod load;
pub mod probe;
mod sockets;
pub mod syscalls;

pub use load::{Exchange, LoadError, LoadReport, LoadSpec, SoFar, Target};
pub use syscalls::SyscallCounter;
