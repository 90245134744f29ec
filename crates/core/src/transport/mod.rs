//! Transports: what stands between a protocol and the engine.
//!
//! `stream.rs` is the transport and its state; the life of its data is told in `receive.rs`, `send.rs` and `closing.rs`.
//! `datagram.rs` is the one of datagram sockets.
//! `tls/` stands between a transport and the application's protocol.

mod closing;
pub mod datagram;
pub mod listener;
mod outbox;
mod protocol;
mod receive;
mod send;
pub mod stream;
pub mod tls;
