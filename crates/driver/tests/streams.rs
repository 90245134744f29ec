//! Streams with short writes, slow readers, and peers that reset.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::*;
use proact_driver::{Op, ops};

on_every_engine! {
    fn a_large_send_to_a_slow_reader(rig) {
        let (a, b) = tcp_pair();
        set_buffer(&a, libc::SO_SNDBUF, 16384);
        set_buffer(&b, libc::SO_RCVBUF, 16384);
        let data: &'static [u8] = pattern(3_000_000, 11).leak();
        let reader = std::thread::spawn(move || {
            b.set_nonblocking(false).unwrap();
            let mut received = Vec::new();
            let mut piece = vec![0; 30_000];
            loop {
                match (&b).read(&mut piece).unwrap() {
                    0 => return received,
                    count => received.extend_from_slice(&piece[..count]),
                }
                if received.len() < 300_000 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let (mut sent, mut shorts) = (0, 0);
        while sent < data.len() {
            let count = rig.run(send(&a, &data[sent..]));
            assert!(count > 0, "{}: {count}", rig.engine.name());
            sent += count as usize;
            shorts += usize::from(sent < data.len());
        }
        assert!(shorts > 0, "no send was short: the test proves nothing");
        drop(a);
        assert_eq!(reader.join().unwrap(), data);
    }

    fn vectored_sends_are_short_anywhere(rig) {
        let (a, b) = tcp_pair();
        set_buffer(&a, libc::SO_SNDBUF, 8192);
        let data = pattern(1_000_000, 12);
        let expected = data.clone();
        let reader = std::thread::spawn(move || {
            b.set_nonblocking(false).unwrap();
            let mut received = Vec::new();
            (&b).read_to_end(&mut received).unwrap();
            received
        });
        let data: &'static mut [u8] = data.leak();
        let mut sent = 0;
        while sent < expected.len() {
            let rest = &data[sent..];
            let cut = rest.len().min(1000);
            let parts: Vec<libc::iovec> = rest[..cut]
                .chunks(333)
                .chain(rest[cut..].chunks(50_000))
                .take(64)
                .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
                .collect();
            let out = message(parts.leak());
            let count = rig.run(Op::SendMsg(ops::SendMsg { fd: a.as_raw_fd(), msg: out, flags: 0 }));
            assert!(count > 0, "{}: {count}", rig.engine.name());
            sent += count as usize;
        }
        drop(a);
        assert_eq!(reader.join().unwrap(), expected);
    }

    fn echo_both_ways_at_once(rig) {
        // The engine has both ends: on each fd a multishot receive and sends are in flight together.
        let (a, b) = tcp_pair();
        let data: &'static [u8] = pattern(1_000_000, 13).leak();
        let (from_a, from_b) = (rig.submit(recv_multi(&a)), rig.submit(recv_multi(&b)));
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        let (mut sent_a, mut sent_b) = (0, 0);
        let mut sending_a = rig.submit(send(&a, data));
        let mut sending_b = rig.submit(send(&b, data));
        while at_a.len() < data.len() || at_b.len() < data.len() {
            rig.turn(Some(Duration::from_millis(100)));
            while let Some(got) = rig.poll(from_a) {
                at_a.extend(got.data.unwrap());
            }
            while let Some(got) = rig.poll(from_b) {
                at_b.extend(got.data.unwrap());
            }
            for (fd, sending, sent) in [(a.as_raw_fd(), &mut sending_a, &mut sent_a), (b.as_raw_fd(), &mut sending_b, &mut sent_b)] {
                if let Some(got) = rig.poll(*sending) {
                    assert!(got.result > 0);
                    *sent += got.result as usize;
                    if *sent < data.len() {
                        let rest = &data[*sent..];
                        *sending = rig.submit(Op::Send(ops::Send { fd, buf: rest.as_ptr(), len: rest.len(), flags: 0 }));
                    }
                }
            }
        }
        assert!(at_a == data && at_b == data);
    }

    fn a_reset_ends_a_receive(rig) {
        for multi in [false, true] {
            let (a, b) = tcp_pair();
            let token = rig.submit(if multi { recv_multi(&b) } else { recv(&b, buffer(8)) });
            rig.assert_pending(token);
            reset_on_close(&a);
            drop(a);
            assert_eq!(rig.result(token), -libc::ECONNRESET);
        }
    }

    fn a_reset_ends_a_send_and_a_poll(rig) {
        let (a, b) = tcp_pair();
        fill(b.as_raw_fd());
        let sending = rig.submit(send(&b, bytes(&[1; 100_000])));
        let poll = rig.submit(Op::Poll(ops::Poll { fd: b.as_raw_fd(), events: POLLIN }));
        rig.assert_pending(sending);
        rig.assert_pending(poll);
        reset_on_close(&a);
        drop(a);
        // The kernel decides which op gets ECONNRESET and which gets EPIPE.
        let result = rig.result(sending);
        assert!([-libc::ECONNRESET, -libc::EPIPE].contains(&result), "{}: {result}", rig.engine.name());
        assert!(rig.result(poll) > 0);
        assert_eq!(rig.run(send(&b, bytes(b"x"))), -libc::EPIPE);
    }

    fn a_reset_with_everything_in_flight(rig) {
        for _ in 0..20 {
            let (a, b) = tcp_pair();
            fill(b.as_raw_fd());
            let receive = rig.submit(recv_multi(&b));
            let sending = rig.submit(send(&b, bytes(&[1; 100_000])));
            rig.assert_pending(receive);
            rig.assert_pending(sending);
            reset_on_close(&a);
            drop(a);
            let results = [rig.result(receive), rig.result(sending)];
            assert!(results.iter().all(|result| [-libc::ECONNRESET, -libc::EPIPE, 0].contains(result)), "{results:?}");
            assert!(results.contains(&-libc::ECONNRESET), "{results:?}");
        }
    }

    fn connections_that_die_in_the_backlog(rig) {
        let listener = listener();
        let token = rig.submit(Op::AcceptMulti(ops::AcceptMulti { fd: listener.as_raw_fd() }));
        rig.assert_pending(token);
        for _ in 0..20 {
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            reset_on_close(&client);
            drop(client);
        }
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"alive").unwrap();
        // Linux also accepts connections that were reset. Only the last one lives.
        let mut last = -1;
        for _ in 0..21 {
            let got = rig.next(token);
            assert!(got.more, "{got:?}");
            if last >= 0 {
                assert_eq!(rig.run(Op::Close(ops::Close { fd: last })), 0);
            }
            last = got.result;
        }
        let memory = buffer(8);
        assert_eq!(rig.run(Op::Recv(ops::Recv { fd: last, buf: memory.as_mut_ptr(), len: 8, flags: 0 })), 5);
        assert_eq!(rig.run(Op::Close(ops::Close { fd: last })), 0);
    }
}
