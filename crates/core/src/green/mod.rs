//! `proact.green`: what a greenlet does that waits for a socket. How greenlets wait is in `reactor/parking.rs`.

pub mod sockets;
