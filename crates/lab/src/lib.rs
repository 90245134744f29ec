//! What proact's laboratory and its benchmarks need natively. No Python in it.
//!
//! | module | what it is |
//! |---|---|
//! | [`load`] | the load: many connections on one thread, closed or open loop, every byte verified |
//! | [`bare`] | the ceilings: echo servers with nothing but Linux under them |
//! | [`syscalls`] | how many system calls another process makes |
//! | [`probe`] | what each I/O call of a process costs it |
//! | [`cpu`] | the CPU time of the calling thread |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod bare;
pub mod cpu;
pub mod load;
pub mod probe;
mod sockets;
pub mod syscalls;

pub use load::{Exchange, LoadError, LoadReport, LoadSpec, Target};
pub use syscalls::SyscallCounter;
