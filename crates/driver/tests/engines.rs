//! The engines of this machine, the choice of one by name, and what the counters count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::*;
use proact_driver::{Call, Config, Engine, Op, OpKind, engine_report, ops};

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
        // Messages come one by one on a connection. Each costs the wait, and on readiness engines also the receive.
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

        // There is nothing to do and the timeout is zero: a ring can tell without a system call.
        rig.turn(Some(Duration::ZERO));
        let before = rig.driver.stats().syscalls;
        for _ in 0..100 {
            rig.turn(Some(Duration::ZERO));
        }
        let made = rig.driver.stats().syscalls - before;
        assert_eq!(made, if rig.is_uring() { 0 } else { 100 }, "{}", rig.engine.name());
    }

    fn calls_beside_the_ops_are_counted(rig) {
        let (a, mut b) = tcp_pair();
        let (fd, events) = (a.as_raw_fd(), POLLIN);
        let made = |rig: &mut Rig, call| {
            let before = rig.driver.stats().syscalls;
            let result = rig.driver.call(call);
            (result, rig.driver.stats().syscalls - before)
        };
        assert_eq!(made(&mut rig, Call::Poll { fd, events }), (-libc::EAGAIN, 1));
        b.write_all(b"ab").unwrap();
        rig.until("the bytes are there", |rig| made(rig, Call::Poll { fd, events }).0 == libc::POLLIN.into());
        assert_eq!(made(&mut rig, Call::NoDelay { fd }), (0, 1));
        assert!(a.nodelay().unwrap());
        a.set_nonblocking(false).unwrap();
        assert_eq!(made(&mut rig, Call::SetNonBlocking { fd }), (0, 2));
        assert_eq!(made(&mut rig, Call::SetNonBlocking { fd }), (0, 1));
        assert_eq!(made(&mut rig, Call::FileType { fd }), (libc::S_IFSOCK as i32, 1));
        assert_eq!(made(&mut rig, Call::FileType { fd: 1 << 30 }), (-libc::EBADF, 1));
        assert_eq!(made(&mut rig, Call::SocketError { fd }), (0, 1));
        assert_eq!(made(&mut rig, Call::Protocol { fd }), (0, 1));
        assert!(made(&mut rig, Call::IsOpen { fd }).0 >= 0);
        assert_eq!(made(&mut rig, Call::IsOpen { fd: 1 << 30 }), (-libc::EBADF, 1));

        // SAFETY: all zeros is a valid address.
        let mut room: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&room) as libc::socklen_t;
        let call = Call::PeerAddress { fd, room: &mut room, len: &mut len };
        assert_eq!(made(&mut rig, call), (0, 1));
        assert_eq!(i32::from(room.ss_family), libc::AF_INET);

        let mut byte = [0];
        let op = recv(&a, &mut byte);
        let before = rig.driver.stats().syscalls;
        // SAFETY: a local buffer, which outlives the call.
        let results = [1, 2, 3].map(|_| unsafe { rig.driver.attempt(&op) });
        assert_eq!(results, [1, 1, -libc::EAGAIN]);
        assert_eq!(rig.driver.stats().syscalls - before, 3);
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
