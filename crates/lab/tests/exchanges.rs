//! Exchanges, a fixed rate and slow connections, against small servers whose behaviour is known.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/trials.rs"]
mod trials;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::{run, short};
use proact_lab::{Exchange, LoadError, LoadSpec};
use trials::once_of_five;

/// A server that answers every 4 bytes with what `answer` makes of them, a thread a connection.
fn server(answer: impl Fn(&[u8; 4], u32) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for peer in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || converse(peer.unwrap(), answer));
        }
    });
    address
}

fn converse(mut peer: TcpStream, answer: impl Fn(&[u8; 4], u32) -> Vec<u8>) {
    peer.set_nodelay(true).unwrap();
    let mut request = [0; 4];
    for number in 0.. {
        if peer.read_exact(&mut request).is_err() || peer.write_all(&answer(&request, number)).is_err() {
            return;
        }
    }
}

fn exchange(request: &[u8], response: &[u8]) -> Exchange {
    Exchange {
        request: request.into(),
        response: response.into(),
    }
}

fn spec(address: SocketAddr) -> LoadSpec {
    LoadSpec {
        duration: Duration::from_millis(400),
        stall_timeout: Duration::from_secs(2),
        ..short(address, 1, 4)
    }
}

#[test]
fn an_exchange_is_verified() {
    let address = server(|request, number| match (request, number) {
        (b"last", 20..) => b"a long angwer".to_vec(),
        (b"more", 20..) => b"a long answer!".to_vec(),
        _ => b"a long answer".to_vec(),
    });
    let asking = |request| LoadSpec {
        connections: 3,
        exchange: Some(exchange(request, b"a long answer")),
        ..spec(address)
    };
    let report = run(&asking(b"good")).unwrap();
    assert!(report.messages > 20, "{report:?}");
    assert_eq!(report.bytes, report.messages * 13);
    assert_eq!((report.unsent, report.slow.is_none()), (0, true));
    let wrong = run(&asking(b"last")).unwrap_err();
    assert!(
        matches!(
            wrong,
            LoadError::Mismatch {
                message: 20,
                offset: 9,
                expected: Some(b's'),
                got: b'g',
                ..
            }
        ),
        "{wrong}"
    );
    let more = run(&asking(b"more")).unwrap_err();
    assert!(
        matches!(more, LoadError::Mismatch { expected: None, .. }),
        "{more}"
    );
}

#[test]
fn a_rate_is_kept() {
    let address = server(|request, _| request.to_vec());
    once_of_five(|| {
        let report = run(&LoadSpec {
            connections: 4,
            rate: Some(1000.0),
            duration: Duration::from_secs(1),
            ..spec(address)
        })
        .unwrap();
        assert!((950..=1050).contains(&report.messages), "{}", report.messages);
        assert!(report.unsent <= 5, "{}", report.unsent);
        // It sleeps until something falls due: neither late by a tick nor spinning.
        assert!(report.latency.p50 < 5_000_000, "{:?}", report.latency);
        assert!(report.cpu_seconds < 0.5, "{}", report.cpu_seconds);
    });
}

#[test]
fn a_connection_may_rest_for_longer_than_a_stall() {
    let address = server(|request, _| request.to_vec());
    once_of_five(|| {
        let report = run(&LoadSpec {
            connections: 3,
            rate: Some(4.0),
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            stall_timeout: Duration::from_millis(300),
            ..spec(address)
        })
        .unwrap();
        assert!((3..=5).contains(&report.messages), "{}", report.messages);
    });
}

/// One pause of 200 ms: a closed loop sees one slow answer, a fixed rate all those that it delayed.
#[test]
fn a_rate_does_not_hide_a_pause() {
    let pausing = || {
        server(|request, number| {
            if number == 100 {
                thread::sleep(Duration::from_millis(200));
            }
            request.to_vec()
        })
    };
    let slow = |report: &proact_lab::LoadReport| {
        let late = report.histogram.iter().filter(|(nanos, _)| *nanos > 20_000_000);
        late.map(|(_, count)| count).sum::<u64>()
    };
    once_of_five(|| {
        let closed = run(&LoadSpec {
            warmup: Duration::ZERO,
            ..spec(pausing())
        })
        .unwrap();
        let open = run(&LoadSpec {
            warmup: Duration::ZERO,
            rate: Some(1000.0),
            duration: Duration::from_millis(600),
            ..spec(pausing())
        })
        .unwrap();
        assert!((1..=3).contains(&slow(&closed)), "{}", slow(&closed));
        assert!((150..=250).contains(&slow(&open)), "{}", slow(&open));
        assert!(open.latency.max >= 195_000_000, "{:?}", open.latency);
    });
}

#[test]
fn what_could_not_be_sent_is_told() {
    let address = server(|request, _| {
        thread::sleep(Duration::from_millis(10));
        request.to_vec()
    });
    once_of_five(|| {
        let report = run(&LoadSpec {
            rate: Some(1000.0),
            ..spec(address)
        })
        .unwrap();
        // About 420 fell due and one connection answers 100 a second.
        assert!((25..=43).contains(&report.messages), "{}", report.messages);
        assert!((350..=410).contains(&report.unsent), "{}", report.unsent);
    });
}

#[test]
fn slow_connections_are_reported_apart() {
    let address = server(|request, _| {
        if request == b"slow" {
            thread::sleep(Duration::from_millis(50));
        }
        request.to_ascii_uppercase()
    });
    once_of_five(|| {
        let report = run(&LoadSpec {
            connections: 2,
            exchange: Some(exchange(b"fast", b"FAST")),
            slow: Some((2, exchange(b"slow", b"SLOW"))),
            idle: 1,
            ..spec(address)
        })
        .unwrap();
        let slow = report.slow.unwrap();
        assert!((8..=16).contains(&slow.messages), "{}", slow.messages);
        assert!(slow.latency.p50 >= 50_000_000, "{:?}", slow.latency);
        assert!(report.latency.p50 < 20_000_000, "{:?}", report.latency);
        assert!(report.messages > 100);
    });
}

#[test]
fn rates_and_exchanges_without_sense() {
    let address = server(|request, _| request.to_vec());
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let error = run(&LoadSpec {
            rate: Some(rate),
            ..spec(address)
        })
        .unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    }
    for pair in [exchange(b"", b"x"), exchange(b"x", b"")] {
        let slow = Some((1, pair.clone()));
        let error = run(&LoadSpec {
            exchange: Some(pair),
            ..spec(address)
        })
        .unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error}");
        let error = run(&LoadSpec {
            slow,
            ..spec(address)
        })
        .unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    }
}
