//! Transports: what stands between a protocol and the engine.
//!
//! `stream.rs` is the transport of a connected socket. Its state is in `receiving.rs` and `sending.rs`; the life of its data
//! is told in `receive.rs`, `send.rs`, `file.rs`, `closing.rs` and `leaving.rs`. `datagram.rs` is the transport of datagram sockets,
//! `pipe.rs` is for what is no socket, and `tls/` stands between a transport and the application's protocol.

mod base;
pub mod clients;
mod closing;
mod counting;
pub mod datagram;
pub mod file;
mod flow;
mod futile;
mod in_flight;
mod leaving;
pub mod listener;
mod outbox;
mod over_socket;
mod phase;
pub mod pipe;
pub mod protocol;
mod rare;
mod receive;
mod receiving;
mod release;
mod report;
pub mod send;
mod sending;
pub mod stream;
pub mod tls;
