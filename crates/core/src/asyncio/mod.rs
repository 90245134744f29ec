//! What asyncio asks of a loop, on the reactor: transports, `sock_*`, readers, futures and tasks.

mod factories;
mod files;
mod readers;
mod sockets;
pub mod transport;
