//! Opens an engine by its name.

use std::io;

use crate::driver::{Config, Driver, Engine};
use crate::readiness::ReadinessDriver;
use crate::selector::{epoll::Epoll, poll::Poll, select::Select};
use crate::uring::UringDriver;

/// Opens an engine.
///
/// # Errors
/// The error of the engine's set-up calls. For `io_uring` also `EOPNOTSUPP` when the kernel denies an opcode that has
/// no replacement (poll, cancel).
pub fn open(engine: Engine, config: &Config) -> io::Result<Box<dyn Driver>> {
    Ok(match engine {
        Engine::IoUring => Box::new(UringDriver::new(config)?),
        Engine::Epoll => Box::new(ReadinessDriver::new(Epoll::new()?)?),
        Engine::Poll => Box::new(ReadinessDriver::new(Poll::new())?),
        Engine::Select => Box::new(ReadinessDriver::new(Select::new())?),
    })
}
