//! The load generator against every bare server (each proves the other), and against servers that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{run, short};
use proact_lab::bare::{Echo, listen, serve_epoll, serve_threads, serve_uring};
use proact_lab::{LoadError, load};

type Serve = fn(OwnedFd, &AtomicBool) -> std::io::Result<()>;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Runs `body` against a server, which has to end well and soon after it is told to.
fn with_server(serve: Serve, body: impl FnOnce(SocketAddr)) {
    let listener = TcpListener::from(listen(loopback()).unwrap());
    let address = listener.local_addr().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(listener.into(), &stop));
        let guard = SetOnDrop(&stop);
        body(address);
        drop(guard);
        let told = Instant::now();
        server.join().unwrap().unwrap();
        assert!(told.elapsed() < Duration::from_secs(2));
    });
}

/// A body that panics must not leave the scope waiting for the server.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn all_sizes_and_counts(serve: Serve) {
    with_server(serve, |address| {
        for size in [1, 1024, 4096, 4097, 65_536, 1 << 20] {
            for connections in [1, 10, 100] {
                let progress = AtomicU64::new(0);
                let report = load::run(
                    &short(address, connections, size),
                    &progress,
                    &AtomicBool::new(false),
                )
                .unwrap();
                // On a busy machine the first of a hundred large echoes may be complete only after the
                // window.
                assert!(progress.into_inner() >= connections as u64);
                assert_eq!(report.bytes, report.messages * size as u64);
                assert_eq!(
                    report.histogram.iter().map(|(_, count)| count).sum::<u64>(),
                    report.messages
                );
                let latency = report.latency;
                assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max);
                assert_eq!(report.messages > 0, latency.p50 > 0);
                assert!(report.seconds >= 0.2 && report.cpu_seconds > 0.0);
            }
        }
    });
}

#[test]
fn epoll_echoes_everything() {
    all_sizes_and_counts(serve_epoll::<Echo>);
}

#[test]
fn uring_echoes_everything() {
    all_sizes_and_counts(serve_uring::<Echo>);
}

#[test]
fn threads_echo_everything() {
    all_sizes_and_counts(serve_threads::<Echo>);
}

const ALL: [Serve; 3] = [serve_epoll::<Echo>, serve_uring::<Echo>, serve_threads::<Echo>];

#[test]
fn the_largest_message_passes() {
    for serve in ALL {
        with_server(serve, |address| {
            let mut spec = short(address, 3, load::MAX_SIZE);
            spec.duration = Duration::from_millis(500);
            run(&spec).unwrap();
        });
    }
}

/// Many small messages pushed without reading, then all of it read: what is queued for a slow reader is
/// neither lost nor reordered, in small buffers or in large ones, and while another connection is being
/// served.
#[test]
fn a_slow_reader_gets_everything_in_order() {
    for serve in ALL {
        with_server(serve, |address| {
            for piece in [100, 3000, 50_000] {
                let data: Vec<u8> = (0..12_000_000_u32)
                    .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                    .collect();
                let mut reader = TcpStream::connect(address).unwrap();
                let mut writer = reader.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        data.chunks(piece)
                            .for_each(|piece| writer.write_all(piece).unwrap());
                        writer.shutdown(Shutdown::Write).unwrap();
                    });
                    // Until here nothing is read, so that every buffer on the way fills up.
                    thread::sleep(Duration::from_millis(100));
                    run(&short(address, 5, 1024)).unwrap();
                    let mut echo = Vec::new();
                    reader.read_to_end(&mut echo).unwrap();
                    assert!(echo == data, "{} bytes of {}", echo.len(), data.len());
                });
            }
        });
    }
}

/// Whoever connects before the server has begun to serve gets TCP_NODELAY too. (io_uring's accepted sockets
/// have no fd to look at: its own tests show it by the time that passes.)
#[test]
fn an_early_connection_has_nodelay() {
    for serve in [serve_epoll::<Echo> as Serve, serve_threads::<Echo>] {
        let listener = TcpListener::bind(loopback()).unwrap();
        let mut early = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(listener.into(), &stop));
            let guard = SetOnDrop(&stop);
            early.write_all(b"x").unwrap();
            early.read_exact(&mut [0]).unwrap();
            assert!(nodelay_of_peer(early.local_addr().unwrap()));
            drop(guard);
            server.join().unwrap().unwrap();
        });
    }
}

/// Looks through this process's sockets for the one that is connected to `client`.
fn nodelay_of_peer(client: SocketAddr) -> bool {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    for fd in fds.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()) {
        // SAFETY: the stream is only looked at and never dropped, so the fd stays with its owner; if it is no
        // socket, or has been closed meanwhile, the calls fail.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        if stream.peer_addr().is_ok_and(|peer| peer == client) {
            return stream.nodelay().unwrap();
        }
    }
    panic!("nobody is connected to {client}");
}

/// A thousand connections that break off with data under way, twice over, and the server still serves.
#[test]
fn peers_that_reset_do_no_harm() {
    for serve in ALL {
        with_server(serve, |address| {
            for round in 0..500_usize {
                let mut peer = TcpStream::connect(address).unwrap();
                peer.write_all(&vec![7; 1 + round * 331 % 200_000]).unwrap();
                // Closing with the echo unread resets the connection.
            }
            run(&short(address, 50, 1024)).unwrap();
        });
    }
}

#[test]
fn a_thousand_connections_and_idle_ones() {
    for serve in [serve_epoll::<Echo> as Serve, serve_uring::<Echo>] {
        with_server(serve, |address| {
            let mut spec = short(address, 1000, 4096);
            spec.idle = 1000;
            let progress = AtomicU64::new(0);
            let report = load::run(&spec, &progress, &AtomicBool::new(false)).unwrap();
            // On a busy machine the first answers may take longer than the window.
            assert!(progress.into_inner() >= report.messages.max(1000));
        });
    }
}

/// Accepts connections, each to be served by `serve` on a thread that ends with its connection.
fn misbehaving(serve: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|peer| drop(thread::spawn(move || serve(peer.unwrap()))))
    });
    address
}

fn echo_changed(mut peer: TcpStream, from: usize, change: fn(u8) -> u8) {
    let mut buffer = [0; 65_536];
    let mut echoed = 0;
    while let Ok(count @ 1..) = peer.read(&mut buffer) {
        for (offset, byte) in (echoed..).zip(&mut buffer[..count]) {
            if offset >= from {
                *byte = change(*byte);
            }
        }
        echoed += count;
        if peer.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn one_wrong_byte_is_caught() {
    let address = misbehaving(|peer| echo_changed(peer, 10 * 1000 + 777, |byte| byte ^ 1));
    let error = run(&short(address, 1, 1000)).unwrap_err();
    let LoadError::Mismatch {
        connection: 0,
        message: 10,
        offset: 777,
        expected: Some(expected),
        got,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(expected, got ^ 1);
    assert!(error.to_string().contains("message 10, byte 777"), "{error}");
}

#[test]
fn bytes_that_nobody_sent_are_caught() {
    let address = misbehaving(|mut peer| {
        let mut buffer = [0; 100];
        peer.read_exact(&mut buffer).unwrap();
        let _ = peer.write_all(&[&buffer[..], &[1]].concat());
        // Keep the connection until the other side has seen it.
        let _ = peer.read(&mut buffer);
    });
    let error = run(&short(address, 1, 100)).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Mismatch {
                offset: 100,
                expected: None,
                got: 1,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn an_echo_to_the_wrong_connection_is_caught() {
    let address = misbehaving(|mut peer| {
        // Always the first message again: also what a server would do that mixes up its buffers.
        let mut first = [0; 64];
        peer.read_exact(&mut first).unwrap();
        while peer.write_all(&first).is_ok() && peer.read_exact(&mut [0; 64]).is_ok() {}
    });
    let error = run(&short(address, 3, 64)).unwrap_err();
    assert!(
        matches!(error, LoadError::Mismatch { message: 1, .. }),
        "{error:?}"
    );
}

#[test]
fn a_stall_is_an_error_and_comes_in_time() {
    let address = misbehaving(|mut peer| {
        let mut buffer = [0; 2000];
        peer.read_exact(&mut buffer).unwrap();
        let _ = peer.write_all(&buffer[..500]);
        while let Ok(1..) = peer.read(&mut buffer) {}
    });
    for duration in [Duration::from_millis(50), Duration::from_secs(30)] {
        let mut spec = short(address, 2, 2000);
        spec.duration = duration;
        spec.stall_timeout = Duration::from_millis(300);
        let began = Instant::now();
        let error = run(&spec).unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Stall {
                    message: 0,
                    sent: 2000,
                    received: 500,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_server_that_closes_is_an_error() {
    let address = misbehaving(|mut peer| {
        let mut buffer = [0; 100];
        peer.read_exact(&mut buffer).unwrap();
        let _ = peer.write_all(&buffer[..40]);
        let _ = peer.shutdown(Shutdown::Write);
        let _ = peer.read(&mut buffer);
    });
    let error = run(&short(address, 1, 100)).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Closed {
                connection: 0,
                message: 0,
                offset: 40
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_server_that_resets_is_an_error() {
    // Closing with unread data resets.
    let address = misbehaving(|peer| {
        peer.peek(&mut [0]).unwrap();
    });
    let error = run(&short(address, 1, 100_000)).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Reset {
                connection: 0,
                message: 0
            }
        ),
        "{error:?}"
    );
}

#[test]
fn nobody_listening_is_refused() {
    // The port of a client is taken, and nobody listens on it.
    let listener = TcpListener::bind(loopback()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let address = client.local_addr().unwrap();
    let error = run(&short(address, 10, 100)).unwrap_err();
    assert!(
        matches!(&error, LoadError::Refused(refused) if *refused == address.into()),
        "{error:?}"
    );
}

#[test]
fn a_full_backlog_is_a_connect_timeout() {
    // Nobody accepts: the backlog of 128 (std) fills, and further handshakes get no answer.
    let listener = TcpListener::bind(loopback()).unwrap();
    let mut spec = short(listener.local_addr().unwrap(), 9000, 100);
    spec.connect_timeout = Duration::from_millis(300);
    let error = run(&spec).unwrap_err();
    assert!(
        matches!(error, LoadError::ConnectTimeout { wanted: 9000, .. }),
        "{error:?}"
    );
}

#[test]
fn too_many_connections_for_the_file_limit() {
    let error = run(&short(loopback(), 100_000_000, 100)).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::TooManyFiles {
                wanted: 100_000_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

#[test]
fn settings_without_sense() {
    for (connections, size) in [(0, 1), (1, 0), (1, load::MAX_SIZE + 1)] {
        let error = run(&short(loopback(), connections, size)).unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
    }
}

#[test]
fn stopping_ends_the_run_with_what_there_is() {
    with_server(serve_epoll::<Echo>, |address| {
        let mut spec = short(address, 4, 1024);
        (spec.warmup, spec.duration) = (Duration::ZERO, Duration::from_secs(60));
        let (progress, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let report = thread::scope(|scope| {
            let running = scope.spawn(|| load::run(&spec, &progress, &stop));
            while progress.load(Ordering::Relaxed) == 0 && !running.is_finished() {
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap().unwrap()
        });
        assert!(report.messages > 0 && report.seconds < 10.0);
        spec.warmup = Duration::from_secs(60);
        let stopped = load::run(&spec, &progress, &stop).unwrap_err();
        assert!(matches!(stopped, LoadError::Stopped), "{stopped:?}");
    });
}
