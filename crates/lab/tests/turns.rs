//! What the io_uring server's speed rests on: one system call a turn. Counted by perf in this very process,
//! in a test binary of its own, so that nobody else's calls are among them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proact_lab::SyscallCounter;
use proact_lab::bare::{Echo, listen, serve_uring};

const ROUNDS: u64 = 1000;

#[test]
fn one_call_a_message_when_there_is_one_message_a_turn() {
    let listener = TcpListener::from(listen("127.0.0.1:0".parse().unwrap()).unwrap());
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve_uring::<Echo>(listener.into(), &stop));
        let mut round = || client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
        // The first one waits until the server is there.
        let outcome = round().and_then(|()| {
            let mut least = u64::MAX;
            for _ in 0..5 {
                let counter = match SyscallCounter::attach_perf(std::process::id()) {
                    Ok(counter) => counter,
                    Err(error) => {
                        eprintln!("SKIPPED: {error}");
                        return Ok(None);
                    }
                };
                for _ in 0..ROUNDS {
                    round()?;
                }
                least = least.min(counter.read());
            }
            Ok(Some(least))
        });
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
        let Some(calls) = outcome.unwrap() else { return };
        // The client makes two for each message. The rest is the server's, with its ticks (two calls each at
        // most), the more of them the longer it takes on a busy machine.
        let server_calls = calls - 2 * ROUNDS;
        assert!(
            server_calls < ROUNDS * 5 / 4,
            "{server_calls} calls of the server for {ROUNDS} messages"
        );
    });
}
