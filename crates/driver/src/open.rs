//! From the name of an engine to the engine.

use std::io;

use crate::driver::{Config, Driver, Engine};
use crate::readiness::ReadinessDriver;
use crate::selector::{epoll::Epoll, poll::Poll, select::Select};
use crate::uring::UringDriver;

/// Opens an engine.
///
/// # Errors
/// What the kernel answers to its set-up; for `io_uring` also `EOPNOTSUPP` where an opcode without which nothing
/// works (poll, cancel) is denied.
pub fn open(engine: Engine, config: &Config) -> io::Result<Box<dyn Driver>> {
    Ok(match engine {
        Engine::IoUring => Box::new(UringDriver::new(config)?),
        Engine::Epoll => Box::new(ReadinessDriver::new(Epoll::new()?)?),
        Engine::Poll => Box::new(ReadinessDriver::new(Poll::new())?),
        Engine::Select => Box::new(ReadinessDriver::new(Select::new())?),
    })
}
