//! Transports: what stands between a protocol and the engine.
//!
//! `stream.rs` is the transport and its state; the life of its data is told in `receive.rs`, `send.rs`, `file.rs` and
//! `closing.rs`. `datagram.rs` is the one of datagram sockets, `pipe.rs` is for what is no socket, and `tls/` stands
//! between a transport and the application's protocol.

mod closing;
pub mod datagram;
pub mod file;
mod flow;
mod futile;
pub mod listener;
mod outbox;
mod phase;
pub mod pipe;
mod protocol;
mod rare;
mod receive;
mod release;
mod send;
pub mod stream;
pub mod tls;
