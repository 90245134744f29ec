//! A loop that has run in one thread later runs in another, never in both at once. On a ring, every waiting op moves
//! to a new ring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use common::*;
use proact_driver::{Config, Engine, Loan, Op, ops};

/// Runs `body` with the rig in another thread, and returns the rig.
fn elsewhere(mut rig: Rig, run: impl FnOnce(&mut Rig) + Send + 'static) -> Rig {
    rig.driver.unbind();
    std::thread::spawn(move || {
        run(&mut rig);
        rig
    })
    .join()
    .unwrap()
}

on_every_engine! {
    fn what_waits_moves(rig) {
        for _ in 0..5 {
            let (mut a, b) = pair();
            let (mut c, d) = pair();
            let listener = listener();
            let address = listener.local_addr().unwrap();
            let second = self::listener();
            let second_address = second.local_addr().unwrap();
            let multi = rig.submit(recv_multi(&b));
            let poll = rig.submit(Op::Poll(ops::Poll { fd: d.as_raw_fd(), events: POLLIN }));
            let polls = rig.submit(Op::PollMulti(ops::PollMulti { fd: d.as_raw_fd(), events: POLLIN }));
            let accepting = rig.submit(Op::AcceptMulti(ops::AcceptMulti { fd: listener.as_raw_fd() }));
            let one = rig.submit(Op::Accept(ops::Accept { fd: second.as_raw_fd() }));
            for token in [multi, poll, polls, accepting, one] {
                rig.assert_pending(token);
            }
            a.write_all(b"here").unwrap();
            assert_eq!(rig.bytes(multi, 4), b"here");
            // These bytes arrive while the loop moves to the other thread.
            a.write_all(b"between").unwrap();
            rig = elsewhere(rig, move |rig| {
                assert_eq!(rig.bytes(multi, 7), b"between");
                for piece in 0..20u8 {
                    a.write_all(&[piece; 100]).unwrap();
                    assert_eq!(rig.bytes(multi, 100), [piece; 100]);
                }
                rig.assert_pending(poll);
                c.write_all(b"x").unwrap();
                assert!(rig.result(poll) > 0);
                assert!(rig.next(polls).more);
                let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(second_address).unwrap()];
                let fds = [rig.next(accepting).result, rig.result(one)];
                for fd in fds {
                    assert!(fd >= 0);
                    // SAFETY: a fresh fd.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
                // Ops that are submitted in the other thread work, and move back with the loop.
                let memory = buffer(8);
                assert_eq!(rig.run(recv(&d, memory)), 1);
                for token in [multi, polls, accepting] {
                    rig.cancel(token);
                    assert_eq!(rig.result(token), CANCELED);
                }
                drop((b, listener, second));
            });
        }
    }

    fn what_was_not_handed_over_goes_along(rig) {
        rig.turn(Some(Duration::ZERO));
        let (mut a, b) = pair();
        let (c, d) = pair();
        let memory = buffer(8);
        let receive = rig.submit(recv(&b, memory));
        let sends = rig.submit(send(&c, bytes(b"queued")));
        let gone = rig.submit(Op::Poll(ops::Poll { fd: d.as_raw_fd(), events: POLLOUT }));
        rig.cancel(gone);
        let closed = pair().0.into_raw_fd();
        let close = rig.submit(Op::Close(ops::Close { fd: closed }));
        a.write_all(b"data").unwrap();
        drop(elsewhere(rig, move |rig| {
            assert_eq!(rig.result(receive), 4);
            assert_eq!(rig.result(sends), 6);
            assert_eq!(rig.result(close), 0);
            let result = rig.result(gone);
            assert!(result == CANCELED || result > 0);
        }));
        drop((a, b, c, d));
    }

    fn what_was_cancelled_before_the_move_ends_after_it(rig) {
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        let poll = rig.submit(Op::Poll(ops::Poll { fd: b.as_raw_fd(), events: POLLIN }));
        rig.assert_pending(token);
        rig.cancel(token);
        rig.cancel(poll);
        drop(elsewhere(rig, move |rig| {
            assert_eq!(rig.result(token), CANCELED);
            assert_eq!(rig.result(poll), CANCELED);
            a.write_all(b"next").unwrap();
            assert_eq!(rig.run(recv(&b, buffer(8))), 4);
        }));
    }

    fn a_close_that_waits_goes_along(rig) {
        let (a, b) = pair();
        let fd = b.into_raw_fd();
        let token = rig.submit(Op::RecvMulti(ops::RecvMulti { fd }));
        rig.assert_pending(token);
        let close = rig.submit(Op::Close(ops::Close { fd }));
        drop(elsewhere(rig, move |rig| {
            assert_eq!(rig.result(token), CANCELED);
            assert_eq!(rig.result(close), 0);
            a.set_nonblocking(false).unwrap();
            assert_eq!((&a).read(&mut [0]).unwrap(), 0);
        }));
    }

    fn wake_ups_and_back_again(rig) {
        let waker = rig.driver.waker();
        rig.turn(Some(Duration::from_millis(1)));
        for _ in 0..10 {
            let other = waker.clone();
            rig = elsewhere(rig, move |rig| {
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(2));
                    other.wake();
                });
                rig.turn(Some(LIMIT));
                thread.join().unwrap();
            });
            waker.wake();
            rig.turn(Some(LIMIT));
        }
    }

    fn held_bytes_survive_the_move(rig) {
        rig.holds = true;
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        a.write_all(b"held").unwrap();
        rig.bytes(token, 4);
        drop(elsewhere(rig, move |rig| {
            for piece in 0..40u8 {
                a.write_all(&[piece; 50]).unwrap();
                assert_eq!(rig.bytes(token, 50), [piece; 50]);
                assert_eq!(rig.driver.data(&rig.held[0]), b"held");
                let last = rig.held.pop().unwrap();
                rig.driver.release(&last);
            }
            rig.release_held();
            drop(b);
        }));
    }

    fn a_shutdown_elsewhere(rig) {
        let (_a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events: POLLIN }));
        rig.assert_pending(token);
        drop(elsewhere(rig, move |rig| {
            assert_eq!(rig.driver.shutdown(LIMIT), 0);
            drop(b);
        }));
    }
}

#[test]
fn what_cannot_move_is_an_error_and_stays_where_it_is() {
    let Some(mut rig) = Rig::with(Engine::IoUring, &Config::default()) else {
        return;
    };
    let (mut a, b) = pair();
    let memory = buffer(8);
    let token = rig.submit(recv(&b, memory));
    rig.assert_pending(token);
    rig = elsewhere(rig, |rig| {
        for _ in 0..2 {
            let error = rig
                .driver
                .wait(Some(Duration::ZERO), &mut Vec::new())
                .unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
            assert!(error.to_string().contains("another thread"), "{error}");
        }
    });
    a.write_all(b"still").unwrap();
    assert_eq!(rig.result(token), 5);
    assert_eq!(&memory[..5], b"still");
    // No op is in flight any more that can't be moved, so the loop moves.
    rig = elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO)));
    drop(rig);
}

#[test]
fn a_thread_that_does_not_let_go_is_an_error() {
    let Some(mut rig) = Rig::with(Engine::IoUring, &Config::default()) else {
        return;
    };
    rig.turn(Some(Duration::ZERO));
    let mut rig = std::thread::spawn(move || {
        let error = rig
            .driver
            .wait(Some(Duration::ZERO), &mut Vec::new())
            .unwrap_err();
        assert!(error.to_string().contains("unbind"), "{error}");
        rig
    })
    .join()
    .unwrap();
    // The first thread may go on, may let go of the ring, and may go on after that.
    rig.turn(Some(Duration::ZERO));
    rig.driver.unbind();
    rig.turn(Some(Duration::ZERO));
    // A thread that has ended has let go of the ring.
    let rig = elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO)));
    drop(elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO))));
}

#[test]
fn a_ring_given_up_really_ends() {
    // A ring that lived on would keep the files of its waiting ops open, so their peers would not see them closed.
    let Some(mut rig) = Rig::with(Engine::IoUring, &Config::default()) else {
        return;
    };
    let (a, b) = pair();
    let fd = b.into_raw_fd();
    let token = rig.submit(Op::RecvMulti(ops::RecvMulti { fd }));
    rig.assert_pending(token);
    let rig = elsewhere(rig, move |rig| {
        rig.assert_pending(token);
        let close = rig.submit(Op::Close(ops::Close { fd }));
        assert_eq!(rig.result(token), CANCELED);
        assert_eq!(rig.result(close), 0);
        a.set_nonblocking(false).unwrap();
        a.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!((&a).read(&mut [0]).unwrap(), 0);
    });
    drop(rig);
}

#[test]
fn fallbacks_move_too() {
    let deny = |words: &[&str]| Config {
        deny: words.iter().map(|word| (*word).to_string()).collect(),
        ..Config::default()
    };
    for words in [
        &["buf_ring"][..],
        &["recv"],
        &["defer_taskrun", "recv"],
        &["defer_taskrun", "single_issuer", "recv"],
        &["ring_fds"],
    ] {
        let Some(mut rig) = Rig::with(Engine::IoUring, &deny(words)) else {
            return;
        };
        for _ in 0..5 {
            let (mut a, b) = pair();
            let token = rig.submit(recv_multi(&b));
            rig.assert_pending(token);
            rig = elsewhere(rig, move |rig| {
                a.write_all(b"moved").unwrap();
                assert_eq!(rig.bytes(token, 5), b"moved", "without {words:?}");
                rig.cancel(token);
                assert_eq!(rig.result(token), CANCELED);
                drop(b);
            });
        }
    }
    // Without DEFER_TASKRUN the old ring might still receive, so the engine returns an error and loses no bytes.
    let Some(mut rig) = Rig::with(Engine::IoUring, &deny(&["defer_taskrun"])) else {
        return;
    };
    let (mut a, b) = pair();
    let token = rig.submit(recv_multi(&b));
    rig.assert_pending(token);
    rig = elsewhere(rig, move |rig| {
        let error = rig
            .driver
            .wait(Some(Duration::ZERO), &mut Vec::new())
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    });
    a.write_all(b"here").unwrap();
    assert_eq!(rig.bytes(token, 4), b"here");
}

#[test]
fn the_ring_of_another_thread_has_the_lent_memory() {
    let Some(mut rig) = Rig::with(Engine::IoUring, &Config::default()) else {
        return;
    };
    let directory = Directory::new();
    let file = directory.0.join("file");
    std::fs::write(&file, pattern(4096, 1)).unwrap();
    let file = std::fs::File::open(&file).unwrap();
    let loan = Loan::new(4096).unwrap();
    let read = || ops::Read {
        fd: file.as_raw_fd(),
        buf: loan.ptr(),
        len: 4096,
        offset: 0,
    };
    // Each ring is asked for it before the read that needs it, whichever thread has submitted the read.
    rig.turn(Some(Duration::ZERO));
    assert_eq!(rig.run(Op::Read(read())), 4096);
    let staged = rig.submit(Op::Read(read()));
    rig = elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO)));
    assert_eq!(rig.result(staged), 4096);
    rig = elsewhere(rig, |rig| assert!(rig.driver.features().is_some()));
    assert_eq!(rig.run(Op::Read(read())), 4096);
    drop(rig);
}

/// Where the new ring may not lock the lent memory, a read that was queued for it goes the plain way, as those after it. Runs in a process
/// of its own that becomes a user without CAP_IPC_LOCK.
#[test]
fn the_ring_of_another_thread_has_no_room_for_the_lent_memory() {
    const NAME: &str = "the_ring_of_another_thread_has_no_room_for_the_lent_memory";
    const CHILD: &str = "PROACT_TEST_OF_LITTLE_MEMORY";
    // SAFETY: the call has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        return; // only root becomes a user whose locked memory nobody else has used
    }
    if std::env::var_os(CHILD).is_none() {
        let program = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(program);
        let output = child
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, "yes")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let directory = Directory::new();
    let file = directory.0.join("file");
    std::fs::write(&file, pattern(4096, 1)).unwrap();
    let file = std::fs::File::open(&file).unwrap();
    let lock = |soft: u64| {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: 8 << 20,
        };
        // SAFETY: a local structure to read.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
        assert_eq!(result, 0);
    };
    lock(8 << 20);
    let user = 600_000 + std::process::id() % 100_000;
    // SAFETY: numbers only.
    let result = unsafe { libc::setresuid(user, user, user) };
    assert_eq!(result, 0);
    let Some(mut rig) = Rig::with(Engine::IoUring, &Config::default()) else {
        return;
    };
    let loan = Loan::new(4096).unwrap();
    let read = || {
        Op::Read(ops::Read {
            fd: file.as_raw_fd(),
            buf: loan.ptr(),
            len: 4096,
            offset: 0,
        })
    };
    rig.turn(Some(Duration::ZERO));
    assert_eq!(rig.run(read()), 4096);
    let refusals = |rig: &Rig| {
        let lines = rig.driver.stats().fallbacks.iter();
        lines
            .filter(|line| line.starts_with("read_fixed (ENOMEM"))
            .count()
    };
    assert_eq!(refusals(&rig), 0);
    let staged = rig.submit(read());
    lock(1 << 16);
    rig = elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO)));
    assert_eq!(rig.result(staged), 4096);
    assert_eq!(rig.run(read()), 4096);
    rig = elsewhere(rig, |rig| rig.turn(Some(Duration::ZERO)));
    assert_eq!(rig.run(read()), 4096);
    assert_eq!(refusals(&rig), 1);
}
