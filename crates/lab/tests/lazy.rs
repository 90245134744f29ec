//! Clients that read slowly, against small servers whose behaviour is known.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use common::{run, short};
use proact_lab::{Exchange, LoadError, LoadSpec};

/// An echo server with a thread a connection. After so many bytes of a connection, it answers a wrong one.
fn server(wrong_after: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let mut peer = peer.unwrap();
            thread::spawn(move || {
                let (mut buffer, mut passed) = (vec![0; 65536], 0);
                while let Ok(count @ 1..) = peer.read(&mut buffer) {
                    if passed < wrong_after && passed + count > wrong_after {
                        buffer[wrong_after - passed] ^= 1;
                    }
                    passed += count;
                    if peer.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn spec(address: SocketAddr, reads: f64) -> LoadSpec {
    LoadSpec {
        lazy: Some((2, reads)),
        duration: Duration::from_millis(400),
        stall_timeout: Duration::from_secs(2),
        ..short(address, 3, 100)
    }
}

#[test]
fn they_send_more_than_they_read_and_the_others_are_served() {
    let report = run(&spec(server(usize::MAX), 10_000.0)).unwrap();
    let (sent, read) = report.lazy.unwrap();
    assert!(sent > 1 << 20, "{sent}");
    assert!(read > 0 && read < sent / 10, "{read}");
    assert!(report.messages > 20);
    assert_eq!(report.bytes, report.messages * 100);
}

#[test]
fn every_byte_that_they_read_is_verified() {
    let mut spec = spec(server(1_234), 100_000.0);
    spec.rate = Some(10.0); // so few that no other connection comes to the wrong byte
    let found = run(&spec).unwrap_err();
    assert!(
        matches!(
            found,
            LoadError::Mismatch {
                connection: 3 | 4,
                message: 12,
                offset: 34,
                expected: Some(_),
                ..
            }
        ),
        "{found:?}"
    );
}

#[test]
fn none_is_asked_of_what_has_no_echo() {
    let mut spec = spec(server(usize::MAX), 1.0);
    spec.exchange = Some(Exchange {
        request: b"a".as_slice().into(),
        response: b"b".as_slice().into(),
    });
    assert!(matches!(run(&spec), Err(LoadError::Invalid(_))));
}
