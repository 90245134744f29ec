//! proact-driver: four engines (io_uring, epoll, poll, select) behind one completion-shaped contract.
//!
//! No Python here. Read `op.rs` (what can be asked for), then `driver.rs` (the contract), then an engine.

mod driver;
mod fork;
pub mod locked;
mod op;
mod pool;
mod probe;
mod readiness;
pub mod selector;
mod stats;
pub mod syscalls;
mod tokens;
mod uring;
mod waker;

pub use driver::{Config, Driver, Engine, Submitted, open};
pub use fork::Generation;
pub use op::{Completion, Flags, Op, OpKind, TOKEN_BITS, Token};
pub use probe::{EngineReport, engine_report, explain};
pub use readiness::ReadinessDriver;
pub use stats::Stats;
pub use uring::{Features, UringDriver};
pub use waker::Waker;
