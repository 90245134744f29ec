//! What asyncio requires of a loop, built on the reactor: transports, `sock_*`, readers, futures and tasks.

pub mod event_loop;
mod factories;
pub mod files;
mod handle;
mod readers;
mod sockets;
pub mod streams;
pub mod transport;
