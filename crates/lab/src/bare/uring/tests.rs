//! The server with hardly any buffers and a ring of eight entries, in each mode: shortages that a real server meets
//! once in a million turns happen all the time here. (These tests found a connection that waited for a buffer for
//! ever.)

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ring::Mode;
use super::{Shape, serve};
use crate::bare::{Echo, listen};
use crate::load::{self, LoadSpec};

fn load(address: SocketAddr, connections: usize, size: usize) {
    let mut spec = LoadSpec::new(address);
    (spec.connections, spec.idle, spec.size) = (connections, connections, size);
    (spec.warmup, spec.duration) = (Duration::ZERO, Duration::from_millis(100));
    // Sockets with so little memory lose segments, and TCP's retransmission backs off to seconds. That is no stall of
    // the server; a pause of half a minute would be one.
    spec.stall_timeout = Duration::from_secs(30);
    let total = AtomicU64::new(0);
    load::run(&spec, &total, &AtomicBool::new(false)).unwrap();
    assert!(total.into_inner() > 0);
}

/// Sends 4 MB in small pieces without reading the echo, and reads it all while other connections are served.
fn slow_reader(address: SocketAddr) {
    let data: Vec<u8> = (0..4_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut reader = TcpStream::connect(address).unwrap();
    let mut writer = reader.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            data.chunks(700)
                .for_each(|piece| writer.write_all(piece).unwrap());
            writer.shutdown(Shutdown::Write).unwrap();
        });
        thread::sleep(Duration::from_millis(20));
        load(address, 5, 1024);
        let mut echo = Vec::new();
        reader.read_to_end(&mut echo).unwrap();
        assert!(echo == data, "{} bytes of {}", echo.len(), data.len());
    });
}

#[test]
fn nothing_is_lost_when_everything_is_short() {
    for mode in [Mode::Deferred, Mode::Cooperative, Mode::Plain] {
        let shape = Shape {
            entries: 8,
            small: (4, 512),
            large: (1, 8192),
            mode,
        };
        let listener = TcpListener::from(listen("127.0.0.1:0".parse().unwrap()).unwrap());
        let address = listener.local_addr().unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| serve::<Echo>(listener.into(), &stop, shape));
            let client = scope.spawn(|| {
                for (connections, size) in [
                    (1, 1),
                    (100, 400),
                    (50, 512),
                    (300, 4096),
                    (1, 4097),
                    (20, 100_000),
                ] {
                    load(address, connections, size);
                }
                slow_reader(address);
            });
            let outcome = client.join();
            stop.store(true, Ordering::Relaxed);
            server.join().unwrap().unwrap();
            outcome.unwrap();
        });
    }
}

/// A client that connects before the server serves gets TCP_NODELAY too. Without it, the second of a message's two
/// sends would wait for the acknowledgement of the first, which the client delays by 40 ms.
#[test]
fn an_early_connection_is_not_delayed() {
    let shape = Shape {
        entries: 8,
        small: (4, 512),
        large: (1, 8192),
        mode: Mode::Deferred,
    };
    // Not by `listen`, which would set the option in time.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    early.set_nodelay(true).unwrap();
    early.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve::<Echo>(listener.into(), &stop, shape));
        let mut echo = [0; 16_000];
        let mut round = || -> std::io::Result<Duration> {
            let began = Instant::now();
            early.write_all(&[7; 16_000])?;
            early.read_exact(&mut echo)?;
            Ok(began.elapsed())
        };
        let outcome: std::io::Result<Vec<_>> = (0..40).map(|_| round()).collect();
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
        // Use the median, because another process may take the core for a moment.
        let mut took = outcome.unwrap();
        took.sort();
        assert!(took[20] < Duration::from_millis(20), "{took:?}");
    });
}
