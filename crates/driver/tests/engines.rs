//! Which engines this machine has; the choice by name; what the counters count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::time::Duration;

use common::*;
use proact_driver::{Config, Engine, Op, OpKind, engine_report, ops};

#[test]
fn every_engine_is_here_or_reported() {
    for line in engine_report(&Config::default()) {
        if let Some(reason) = &line.reason {
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED on {}: {reason}",
                line.engine.name()
            );
            assert_eq!(line.engine, Engine::IoUring, "{reason}");
        }
    }
}

#[test]
fn names() {
    for engine in Engine::ALL {
        assert_eq!(Engine::from_name(engine.name()), Some(engine));
    }
    assert_eq!(Engine::from_name("kqueue"), None);
    let names: std::collections::HashSet<_> = OpKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), OpKind::ALL.len());
}

on_every_engine! {
    fn system_calls_are_counted(rig) {
        // A connection on which messages come one by one: each costs the wait, and the receive where that is a call.
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        for _ in 0..3 {
            a.write_all(b"x").unwrap();
            rig.bytes(token, 1);
        }
        let before = rig.driver.stats().syscalls;
        for _ in 0..100 {
            a.write_all(b"x").unwrap();
            assert_eq!(rig.bytes(token, 1), b"x");
        }
        let made = rig.driver.stats().syscalls - before;
        let expected = if rig.is_uring() { 100 } else { 200 };
        assert!((expected..expected + 5).contains(&made), "{}: {made}", rig.engine.name());

        // Nothing to do and no time to wait: a ring knows it without a call.
        rig.turn(Some(Duration::ZERO));
        let before = rig.driver.stats().syscalls;
        for _ in 0..100 {
            rig.turn(Some(Duration::ZERO));
        }
        let made = rig.driver.stats().syscalls - before;
        assert_eq!(made, if rig.is_uring() { 0 } else { 100 }, "{}", rig.engine.name());
    }

    fn waiting_time_is_counted(rig) {
        let before = rig.driver.stats().wait_ns;
        rig.turn(Some(Duration::from_millis(5)));
        let waited = rig.driver.stats().wait_ns - before;
        assert!((5_000_000..500_000_000).contains(&waited), "{}: {waited}", rig.engine.name());
    }

    fn every_kind_is_counted_by_its_name(rig) {
        let (a, b) = pair();
        assert_eq!(rig.run(send(&a, bytes(b"x"))), 1);
        assert_eq!(rig.run(recv(&b, buffer(1))), 1);
        assert!(rig.run(Op::Poll(ops::Poll { fd: std::os::fd::AsRawFd::as_raw_fd(&a), events: POLLOUT })) > 0);
        let submitted: Vec<_> = rig.driver.stats().submitted().collect();
        assert_eq!(submitted, [("recv", 1), ("send", 1), ("poll", 1)], "{}", rig.engine.name());
        let completed: Vec<_> = rig.driver.stats().completed().collect();
        assert_eq!(completed, submitted, "{}", rig.engine.name());
    }
}
