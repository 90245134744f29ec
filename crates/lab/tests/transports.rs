//! The load over Unix sockets and datagrams, and with a connection for each message, against small servers of
//! its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{run, short};
use proact_lab::{LoadError, Target, load};

fn echo(mut peer: impl std::io::Read + std::io::Write) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = peer.read(&mut buffer) {
        if peer.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
}

/// Serves on a thread that ends with the test's process.
fn unix_server(listener: UnixListener) {
    thread::spawn(move || {
        for peer in listener.incoming() {
            thread::spawn(move || echo(peer.unwrap()));
        }
    });
}

#[test]
fn unix_sockets_by_abstract_name_and_by_path() {
    let name = format!("proact-load-{}", std::process::id());
    let abstract_name = UnixAddr::from_abstract_name(&name).unwrap();
    unix_server(UnixListener::bind_addr(&abstract_name).unwrap());
    let path = std::env::temp_dir().join(&name);
    unix_server(UnixListener::bind(&path).unwrap());
    for target in [PathBuf::from(format!("\0{name}")), path.clone()] {
        // Far more connections than the backlog of 128 takes at once.
        let report = run(&short(Target::Unix(target), 300, 1000)).unwrap();
        assert_eq!(report.bytes, report.messages * 1000);
        assert!(report.messages > 0);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_unix_socket_that_cannot_be() {
    let nobody = Target::Unix("\0proact-load-nobody".into());
    let error = run(&short(nobody.clone(), 1, 1)).unwrap_err();
    assert!(
        matches!(&error, LoadError::Refused(refused) if *refused == nobody),
        "{error:?}"
    );
    let long = Target::Unix("/".repeat(200).into());
    assert!(matches!(
        run(&short(long, 1, 1)).unwrap_err(),
        LoadError::Io { .. }
    ));
}

/// Echoes each datagram but every `lost`th.
fn udp_server(lost: u64) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        for number in 1_u64.. {
            let (count, peer) = socket.recv_from(&mut buffer).unwrap();
            if number % lost != 0 {
                socket.send_to(&buffer[..count], peer).unwrap();
            }
        }
    });
    address
}

#[test]
fn datagrams_of_every_size() {
    let address = udp_server(u64::MAX);
    for size in [1, 1024, load::MAX_DATAGRAM] {
        let report = run(&short(Target::Udp(address), 2, size)).unwrap();
        assert!(report.messages > 0);
    }
    let error = run(&short(Target::Udp(address), 1, load::MAX_DATAGRAM + 1)).unwrap_err();
    assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
}

#[test]
fn a_lost_datagram_is_a_stall() {
    let mut spec = short(Target::Udp(udp_server(10)), 1, 100);
    spec.stall_timeout = Duration::from_secs(1);
    let error = run(&spec).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Stall {
                message: 9,
                sent: 100,
                received: 0,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_connection_for_each_message() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&accepted);
    thread::spawn(move || {
        for peer in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || echo(peer.unwrap()));
        }
    });
    let mut spec = short(address, 5, 1000);
    spec.churn = true;
    let progress = AtomicU64::new(0);
    let report = load::run(&spec, &progress, &AtomicBool::new(false)).unwrap();
    assert!(report.messages > 0);
    assert!(progress.into_inner() >= report.messages);
    // One a message, and no more than the five that the window's end left without one.
    assert!(accepted.load(Ordering::Relaxed) >= report.messages + 5);
}
