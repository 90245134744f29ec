//! Fds at and above FD_SETSIZE: select returns a clear error, the other engines work as usual. This file has one
//! test, because it uses up the numbers of the whole process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};

use common::*;
use proact_driver::{Config, Engine, Op, engine_report, open, ops};

#[test]
fn numbers_past_the_set() {
    // Open the engines while numbers are still low.
    let mut rigs: Vec<Rig> = Engine::ALL.into_iter().filter_map(Rig::open).collect();
    let (mut low, low_end) = pair();
    let fillers: Vec<File> = (0..1100).map(|_| File::open("/dev/null").unwrap()).collect();
    let (mut a, b) = pair();
    assert!(b.as_raw_fd() as usize > libc::FD_SETSIZE);

    for rig in &mut rigs {
        let name = rig.engine.name();
        let memory = buffer(16);
        let early = rig.submit(recv_multi(&low_end));
        rig.assert_pending(early);
        if rig.engine == Engine::Select {
            let fd = b.as_raw_fd();
            for op in [
                recv(&b, memory),
                recv_multi(&b),
                Op::Poll(ops::Poll { fd, events: POLLOUT }),
                Op::PollMulti(ops::PollMulti { fd, events: POLLIN }),
            ] {
                assert_eq!(rig.run(op), -libc::ERANGE, "{op:?}");
            }
            // Ops that need not wait work.
            assert_eq!(rig.run(send(&b, bytes(b"no need to wait"))), 15);
            std::io::Read::read_exact(&mut a, &mut [0; 15]).unwrap();
            let closed = b.try_clone().unwrap().into_raw_fd();
            assert_eq!(rig.run(Op::Close(ops::Close { fd: closed })), 0);
        } else {
            let token = rig.submit(recv(&b, memory));
            rig.assert_pending(token);
            a.write_all(b"high").unwrap();
            assert_eq!(rig.result(token), 4, "{name}");
            let multi = rig.submit(recv_multi(&b));
            rig.assert_pending(multi);
            a.write_all(b"higher").unwrap();
            assert_eq!(rig.bytes(multi, 6), b"higher", "{name}");
            rig.cancel(multi);
            assert_eq!(rig.result(multi), CANCELED, "{name}");
        }
        // Ops on low numbers still work.
        rig.assert_pending(early);
        low.write_all(b"low").unwrap();
        assert_eq!(rig.bytes(early, 3), b"low", "{name}");
        rig.cancel(early);
        assert_eq!(rig.result(early), CANCELED, "{name}");
    }

    // An engine that is opened now can't watch its own wake-up event, whose number is too high.
    let error = open(Engine::Select, &Config::default()).err().unwrap();
    assert_eq!(error.raw_os_error(), Some(libc::ERANGE));
    let report = engine_report(&Config::default());
    let select = report.iter().find(|line| line.engine == Engine::Select).unwrap();
    assert!(
        select.reason.as_ref().unwrap().contains("FD_SETSIZE"),
        "{select:?}"
    );
    drop(rigs);
    drop(fillers);
}
