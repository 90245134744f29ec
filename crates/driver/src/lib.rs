//! proact-driver: four engines (io_uring, epoll, poll, select) behind one completion-shaped contract.
//!
//! There is no Python here. Read `ops/mod.rs` (the ops), then `driver.rs` (the contract), then an engine.

mod by_number;
mod cached;
mod call;
mod clock;
mod completion;
mod cores;
mod driver;
mod errno;
mod features;
mod fork;
mod habit;
mod lent;
pub mod locked;
mod open;
pub mod ops;
mod pages;
mod pool;
mod probe;
mod readiness;
pub mod selector;
mod spin;
mod stats;
pub mod syscalls;
mod tokens;
mod uring;
mod waker;

pub use call::Call;
pub use clock::{Clock, Monotonic};
pub use completion::{Completion, Flags, TOKEN_BITS, Token};
pub use driver::{Config, Driver, Engine, Submitted};
pub use features::Features;
pub use fork::Generation;
pub use lent::Loan;
pub use open::open;
pub use ops::{Op, OpKind};
pub use pages::Pages;
pub use pool::PoolCounts;
pub use probe::{EngineReport, engine_report, explain};
pub use readiness::ReadinessDriver;
pub use spin::{Spin, SpinCounts};
pub use stats::Stats;
pub use uring::UringDriver;
pub use waker::Waker;
