//! A ring of eight entries gets far more completions than its queue holds, and loses none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use common::*;
use proact_driver::{Config, Engine, Op, ops};

fn rigs() -> Vec<Rig> {
    let small = Config {
        entries: 8,
        cq_entries: 16,
        ..Config::default()
    };
    // select is left out: these tests open more files than it can watch (see fd_setsize.rs).
    [Engine::IoUring, Engine::Epoll, Engine::Poll]
        .into_iter()
        .filter_map(|engine| Rig::with(engine, &small))
        .collect()
}

#[test]
fn hundreds_of_ops_complete_at_once() {
    for mut rig in rigs() {
        for round in 0..5u8 {
            let mut pairs: Vec<_> = (0..400).map(|_| pair()).collect();
            let memory: Vec<_> = (0..400).map(|_| buffer(8)).collect();
            let mut receives = Vec::new();
            for ((_, b), memory) in pairs.iter().zip(memory) {
                receives.push((rig.submit(recv(b, memory)), memory));
            }
            rig.assert_pending(receives[399].0);
            for (index, (a, _)) in pairs.iter_mut().enumerate() {
                a.write_all(&[round, index as u8]).unwrap();
            }
            let sends: Vec<_> = pairs
                .iter()
                .map(|(_, b)| rig.submit(send(b, bytes(b"flood"))))
                .collect();
            for (index, (token, memory)) in receives.into_iter().enumerate() {
                assert_eq!(rig.result(token), 2, "{}", rig.engine.name());
                assert_eq!(memory[..2], [round, index as u8]);
            }
            for token in sends {
                assert_eq!(rig.result(token), 5, "{}", rig.engine.name());
            }
        }
        if rig.is_uring() {
            assert!(
                rig.driver.stats().overflows > 0,
                "the queue was never full: this proves nothing"
            );
        }
    }
}

#[test]
fn multishots_survive_the_flood() {
    for mut rig in rigs() {
        let mut pairs: Vec<_> = (0..200).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        let polls: Vec<_> = pairs
            .iter()
            .map(|(_, b)| {
                rig.submit(Op::PollMulti(ops::PollMulti {
                    fd: b.as_raw_fd(),
                    events: POLLOUT,
                }))
            })
            .collect();
        let listener = listener();
        let accepting = rig.submit(Op::AcceptMulti(ops::AcceptMulti {
            fd: listener.as_raw_fd(),
        }));
        rig.assert_pending(accepting);
        for round in 0..10u8 {
            let clients: Vec<_> = (0..30)
                .map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
                .collect();
            for (index, (a, _)) in pairs.iter_mut().enumerate() {
                a.write_all(&[round, index as u8, 1, 2]).unwrap();
            }
            for _ in &clients {
                let got = rig.next(accepting);
                assert!(got.more && got.result >= 0, "{}: {got:?}", rig.engine.name());
                // SAFETY: a fresh fd.
                drop(unsafe { OwnedFd::from_raw_fd(got.result) });
            }
            for (index, token) in tokens.iter().enumerate() {
                assert_eq!(
                    rig.bytes(*token, 4),
                    [round, index as u8, 1, 2],
                    "{}",
                    rig.engine.name()
                );
            }
            for poll in &polls {
                assert!(rig.next(*poll).more);
                while rig.poll(*poll).is_some() {}
            }
        }
        if rig.is_uring() {
            assert!(
                rig.driver.stats().overflows > 0,
                "the queue was never full: this proves nothing"
            );
        }
    }
}

/// When the completion queue is full, the kernel ends a multishot accept with a connection (a result without
/// `IORING_CQE_F_MORE`). The engine submits the accept again, and the submitter does not notice.
#[test]
fn an_accept_that_ends_with_a_connection_goes_on() {
    for mut rig in rigs() {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let connect = || {
            (0..60)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect::<Vec<_>>()
        };
        let mut clients = connect();
        let accepting = rig.submit(Op::AcceptMulti(ops::AcceptMulti {
            fd: listener.as_raw_fd(),
        }));
        for _ in 0..3 {
            for _ in 0..60 {
                let got = rig.next(accepting);
                assert!(got.more && got.result >= 0, "{}: {got:?}", rig.engine.name());
                // SAFETY: a fresh fd.
                drop(unsafe { OwnedFd::from_raw_fd(got.result) });
            }
            rig.assert_pending(accepting);
            clients = connect();
        }
        drop(clients);
        if rig.is_uring() {
            assert!(
                rig.driver.stats().overflows > 0,
                "the queue was never full: this proves nothing"
            );
        }
    }
}

#[test]
fn more_submissions_than_entries_in_one_turn() {
    for mut rig in rigs() {
        let (a, _b) = pair();
        for _ in 0..10 {
            let tokens: Vec<_> = (0..1000)
                .map(|_| {
                    rig.submit(Op::Poll(ops::Poll {
                        fd: a.as_raw_fd(),
                        events: POLLOUT,
                    }))
                })
                .collect();
            rig.turn(Some(Duration::from_secs(1)));
            for token in tokens {
                assert!(rig.result(token) > 0);
            }
        }
    }
}
