//! Cancels ops that are proved to be in flight first, and lets a cancel race with the data.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::*;
use proact_driver::{Op, Token, ops};

/// Cancels an op that is in flight, and expects `-ECANCELED`.
fn cancels(rig: &mut Rig, op: Op) {
    let token = rig.submit(op);
    rig.assert_pending(token);
    rig.cancel(token);
    assert_eq!(rig.result(token), CANCELED, "{}: {op:?}", rig.engine.name());
}

on_every_engine! {
    fn whatever_waits_for_bytes(rig) {
        let (mut a, b) = pair();
        let memory = buffer(16);
        cancels(&mut rig, recv(&b, memory));
        cancels(&mut rig, recv_multi(&b));
        cancels(&mut rig, read(&b, memory, -1));
        let into = message(vectors(&mut [buffer(4)]));
        cancels(&mut rig, Op::RecvMsg(ops::RecvMsg { fd: b.as_raw_fd(), msg: into, flags: 0 }));
        let vector = vectors(&mut [buffer(4)]);
        cancels(&mut rig, Op::Readv(ops::Readv { fd: b.as_raw_fd(), iov: vector.as_ptr(), count: 1, offset: -1 }));
        cancels(&mut rig, Op::Poll(ops::Poll { fd: b.as_raw_fd(), events: POLLIN }));
        cancels(&mut rig, Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events: POLLIN }));
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, _writer) = pipe(flags);
            cancels(&mut rig, read(&reader, memory, -1));
        }
        // None of the cancelled ops took the bytes that came afterwards.
        a.write_all(b"mine").unwrap();
        assert_eq!(rig.run(recv(&b, memory)), 4);
        assert_eq!(&memory[..4], b"mine");
    }

    fn whatever_waits_for_room(rig) {
        let (a, b) = pair();
        let filled = fill(a.as_raw_fd());
        let block = bytes(&[1; 5000]);
        cancels(&mut rig, send(&a, block));
        cancels(&mut rig, write(&a, block, -1));
        let out = message(vectors(&mut [bytes(&[1; 5000])]));
        cancels(&mut rig, Op::SendMsg(ops::SendMsg { fd: a.as_raw_fd(), msg: out, flags: 0 }));
        let vector = vectors(&mut [bytes(&[1; 5000])]);
        cancels(&mut rig, Op::Writev(ops::Writev { fd: a.as_raw_fd(), iov: vector.as_ptr(), count: 1, offset: -1 }));
        cancels(&mut rig, Op::Poll(ops::Poll { fd: a.as_raw_fd(), events: POLLOUT }));
        cancels(&mut rig, Op::PollMulti(ops::PollMulti { fd: a.as_raw_fd(), events: POLLOUT }));
        for flags in [0, libc::O_NONBLOCK] {
            let (_reader, writer) = pipe(flags);
            let all = buffer(65536);
            assert_eq!(rig.run(write(&writer, all, -1)), 65536);
            cancels(&mut rig, write(&writer, block, -1));
        }
        // Only the bytes that filled the socket were sent.
        drop(a);
        let mut received = Vec::new();
        let mut b = b;
        b.set_nonblocking(false).unwrap();
        b.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), filled);
    }

    fn accepts(rig) {
        let listener = listener();
        cancels(&mut rig, Op::Accept(ops::Accept { fd: listener.as_raw_fd() }));
        cancels(&mut rig, Op::AcceptMulti(ops::AcceptMulti { fd: listener.as_raw_fd() }));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for _ in 0..3 {
            rig.turn(Some(Duration::ZERO));
        }
        // No cancelled accept took the connection.
        assert!(listener.accept().is_ok());
    }

    fn a_connect(rig) {
        // A listener with a full backlog does not answer the SYN, so a connect waits.
        let listener = listener();
        let port = listener.local_addr().unwrap().port();
        // SAFETY: the fd is an open listening socket.
        unsafe { libc::listen(listener.as_raw_fd(), 0) };
        let filler = socket();
        assert_eq!(rig.run(connect(&filler, port)), 0);
        let client = socket();
        cancels(&mut rig, connect(&client, port));
    }

    fn splices(rig) {
        let (reader, _writer) = pipe(0);
        let (_other, to) = pipe(0);
        for _ in 0..2 {
            let op = Op::Splice(ops::Splice {
                from: reader.as_raw_fd(), from_offset: -1, to: to.as_raw_fd(), to_offset: -1, len: 10, flags: 0,
            });
            let token = rig.submit(op);
            rig.assert_pending(token);
            std::thread::sleep(Duration::from_millis(2));
            rig.assert_pending(token);
            rig.cancel(token);
            assert_eq!(rig.result(token), CANCELED);
        }
    }

    fn what_is_over_or_unknown_or_not_handed_over(rig) {
        let (mut a, b) = pair();
        let memory = buffer(8);
        rig.cancel(123_456);
        rig.cancel(0);
        a.write_all(b"x").unwrap();
        let token = rig.submit(recv(&b, memory));
        assert_eq!(rig.result(token), 1);
        rig.cancel(token);
        rig.cancel(token);
        rig.turn(Some(Duration::ZERO));
        // Cancel an op twice, and before a wait has handed it to the kernel.
        let token = rig.submit(recv(&b, memory));
        rig.cancel(token);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
        let token = rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events: POLLOUT }));
        assert!(rig.next(token).more);
        // The op is between two polls now.
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
        let token = rig.submit(recv(&b, memory));
        a.write_all(b"y").unwrap();
        assert_eq!(rig.result(token), 1);
    }

    fn a_cancel_that_ends_the_op_says_so(rig) {
        let (mut a, b) = pair();
        let memory = buffer(8);
        // A wait has handed the op over. On io_uring the kernel has it now, so a cancel may come too late.
        let token = rig.submit(recv(&b, memory));
        rig.assert_pending(token);
        assert_eq!(rig.cancel(token), !rig.is_uring());
        assert!(!rig.cancel(token), "{}: it is cancelled already", rig.engine.name());
        assert_eq!(rig.result(token), CANCELED);
        // No wait has handed these ops over: the cancel removes their entries, and later bytes are not theirs.
        for op in [recv(&b, memory), recv_multi(&b), Op::Poll(ops::Poll { fd: b.as_raw_fd(), events: POLLIN })] {
            let token = rig.submit(op);
            assert!(rig.cancel(token), "{}: {op:?}", rig.engine.name());
            assert!(!rig.cancel(token));
            a.write_all(b"x").unwrap();
            rig.turn(Some(Duration::ZERO));
            let got = rig.poll(token).expect("it comes with the next wait");
            assert_eq!((got.result, got.more), (CANCELED, false), "{}: {op:?}", rig.engine.name());
            assert_eq!(rig.run(recv(&b, memory)), 1);
        }
        // The cancel removes the right op from between two that stay.
        let (_c, d) = pair();
        let stays = rig.submit(recv(&d, buffer(8)));
        let gone = rig.submit(recv(&b, memory));
        let after = rig.submit(Op::PollMulti(ops::PollMulti { fd: d.as_raw_fd(), events: POLLOUT }));
        assert!(rig.cancel(gone));
        assert_eq!(rig.result(gone), CANCELED);
        assert!(rig.next(after).more);
        rig.assert_pending(stays);
        assert!(!rig.cancel(999_999), "{}: nobody's", rig.engine.name());
    }

    fn against_data(rig) {
        // Whether the cancel or the data wins, the bytes are delivered once: by the cancelled op or by the next one.
        let (mut a, b) = tcp_pair();
        for round in 0..2000u32 {
            let memory = buffer(8);
            let token = rig.submit(recv(&b, memory));
            rig.turn(Some(Duration::ZERO));
            if round % 2 == 0 {
                a.write_all(&round.to_le_bytes()).unwrap();
                rig.cancel(token);
            } else {
                rig.cancel(token);
                a.write_all(&round.to_le_bytes()).unwrap();
            }
            match rig.result(token) {
                4 => assert_eq!(memory[..4], round.to_le_bytes()),
                CANCELED => {
                    assert_eq!(rig.run(recv(&b, memory)), 4);
                    assert_eq!(memory[..4], round.to_le_bytes());
                }
                other => panic!("{}: {other}", rig.engine.name()),
            }
        }
    }

    fn a_multishot_against_data(rig) {
        let (mut a, b) = tcp_pair();
        let mut received = Vec::new();
        let mut sent = Vec::new();
        let mut collect = |rig: &mut Rig, token: Token| loop {
            let got = rig.next(token);
            if !got.more {
                assert_eq!(got.result, CANCELED);
                break;
            }
            received.extend(got.data.unwrap());
        };
        for round in 0..1000u32 {
            let token = rig.submit(recv_multi(&b));
            rig.turn(Some(Duration::ZERO));
            a.write_all(&round.to_le_bytes()).unwrap();
            sent.extend(round.to_le_bytes());
            if round % 3 == 0 {
                rig.turn(Some(Duration::ZERO));
            }
            rig.cancel(token);
            collect(&mut rig, token);
        }
        let token = rig.submit(recv_multi(&b));
        for _ in 0..3 {
            rig.turn(Some(Duration::ZERO));
        }
        rig.cancel(token);
        collect(&mut rig, token);
        assert_eq!(received, sent);
    }

    fn pool_work_that_has_not_begun(rig) {
        // The test opens a fifo more often than the pool has threads, so the last ops wait in its queue.
        let directory = Directory::new();
        let fifo = directory.0.join("fifo");
        // SAFETY: a path that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path(&fifo), 0o600) }, 0);
        let open = || Op::OpenAt(ops::OpenAt { dir: libc::AT_FDCWD, path: path(&fifo), flags: libc::O_RDONLY, mode: 0, waits: false });
        let tokens: Vec<_> = (0..40).map(|_| rig.submit(open())).collect();
        rig.turn(Some(Duration::from_millis(20)));
        for token in tokens.iter().rev() {
            rig.cancel(*token);
        }
        let _other = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        let mut canceled = 0;
        for token in tokens {
            match rig.result(token) {
                CANCELED => canceled += 1,
                fd if fd >= 0 => {
                    // SAFETY: a fresh fd that nobody else owns.
                    unsafe { libc::close(fd) };
                }
                other => panic!("{}: {other}", rig.engine.name()),
            }
        }
        assert!(rig.is_uring() || canceled > 0);
    }

    fn work_that_hangs_keeps_no_other_work_waiting(rig) {
        // The test opens a fifo as often as the pool has threads, and oftener than a ring has workers by itself.
        let directory = Directory::new();
        let fifo = directory.0.join("fifo");
        // SAFETY: a path that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path(&fifo), 0o600) }, 0);
        let mkdir = |name: &str| Op::MkdirAt(ops::MkdirAt { dir: libc::AT_FDCWD, path: path(&directory.0.join(name)), mode: 0o700 });
        assert_eq!(rig.run(mkdir("first")), 0);
        let many = if rig.is_uring() { 100 } else { rig.driver.pool().limit };
        let open = || Op::OpenAt(ops::OpenAt { dir: libc::AT_FDCWD, path: path(&fifo), flags: libc::O_RDONLY, mode: 0, waits: true });
        let tokens: Vec<_> = (0..many).map(|_| rig.submit(open())).collect();
        if !rig.is_uring() {
            rig.until("busy threads", |rig| rig.driver.pool().busy == many);
            let waits = rig.submit(mkdir("second"));
            assert_eq!(rig.driver.pool().queued, 1);
            for token in &tokens {
                rig.cancel(*token);
            }
            assert_eq!(rig.result(waits), 0);
            assert_eq!(rig.driver.pool().lost, many);
        }
        assert_eq!(rig.run(mkdir("third")), 0);
        for token in &tokens {
            rig.cancel(*token);
        }
        let _other = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        for token in tokens {
            let result = rig.result(token);
            if result >= 0 {
                // SAFETY: a fresh fd that nobody else owns.
                unsafe { libc::close(result) };
            }
        }
        rig.until("the end of the threads that hung", |rig| rig.driver.pool().lost == 0);
        assert!(rig.driver.pool().threads <= rig.driver.pool().limit);
    }
}
