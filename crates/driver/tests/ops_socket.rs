//! Each op on sockets and pipes: its results, its errors, and what it waits for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use common::*;
use proact_driver::{Engine, Op, ops};

on_every_engine! {
    fn recv_waits_for_data(rig) {
        let (mut a, b) = pair();
        let memory = buffer(16);
        let token = rig.submit(recv(&b, memory));
        rig.assert_pending(token);
        a.write_all(b"hello").unwrap();
        assert_eq!(rig.result(token), 5);
        assert_eq!(&memory[..5], b"hello");
        a.write_all(b"again").unwrap();
        assert_eq!(rig.run(recv(&b, memory)), 5);
        assert_eq!(&memory[..5], b"again");
        drop(a);
        assert_eq!(rig.run(recv(&b, memory)), 0);
    }

    fn recv_is_short_and_keeps_the_rest(rig) {
        let (mut a, b) = pair();
        a.write_all(b"0123456789").unwrap();
        let memory = buffer(4);
        for expected in [&b"0123"[..], b"4567", b"89"] {
            assert_eq!(rig.run(recv(&b, memory)), expected.len() as i32);
            assert_eq!(&memory[..expected.len()], expected);
        }
    }

    fn recv_peek_leaves_the_bytes(rig) {
        let (mut a, b) = pair();
        a.write_all(b"peek").unwrap();
        let memory = buffer(8);
        let peek = Op::Recv(ops::Recv { fd: b.as_raw_fd(), buf: memory.as_mut_ptr(), len: 8, flags: libc::MSG_PEEK });
        assert_eq!(rig.run(peek), 4);
        assert_eq!(rig.run(recv(&b, memory)), 4);
    }

    fn ops_of_one_fd_share_its_bytes(rig) {
        let (mut a, b) = pair();
        let memory: Vec<_> = (0..4).map(|_| buffer(1)).collect();
        let mut tokens = Vec::new();
        for memory in memory {
            tokens.push((rig.submit(recv(&b, memory)), memory));
        }
        rig.assert_pending(tokens[0].0);
        a.write_all(b"abcd").unwrap();
        let mut received: Vec<u8> = Vec::new();
        for (token, memory) in tokens {
            assert_eq!(rig.result(token), 1);
            received.push(memory[0]);
        }
        // A readiness engine runs them in the order of submission, a ring in any order.
        if rig.is_uring() {
            received.sort_unstable();
        }
        assert_eq!(received, b"abcd");
    }

    fn bad_fds(rig) {
        let memory = buffer(8);
        let closed = apart(pair().0);
        assert_eq!(rig.run(Op::Close(ops::Close { fd: closed })), 0);
        for fd in [-1, closed, 1 << 30, i32::MAX] {
            let vector = vectors(&mut [buffer(1)]);
            let message = message(vectors(&mut [buffer(1)]));
            let (addr, len) = address(1);
            let (buf, iov) = (memory.as_mut_ptr(), vector.as_ptr());
            for op in [
                Op::AcceptMulti(ops::AcceptMulti { fd }),
                Op::Accept(ops::Accept { fd }),
                Op::Connect(ops::Connect { fd, addr, len }),
                Op::RecvMulti(ops::RecvMulti { fd }),
                Op::Recv(ops::Recv { fd, buf, len: 8, flags: 0 }),
                Op::Send(ops::Send { fd, buf, len: 8, flags: 0 }),
                Op::SendMsg(ops::SendMsg { fd, msg: message, flags: 0 }),
                Op::RecvMsg(ops::RecvMsg { fd, msg: message, flags: 0 }),
                Op::Read(ops::Read { fd, buf, len: 8, offset: 0 }),
                Op::Read(ops::Read { fd, buf, len: 8, offset: -1 }),
                Op::Write(ops::Write { fd, buf, len: 8, offset: 0 }),
                Op::Write(ops::Write { fd, buf, len: 8, offset: -1 }),
                Op::Readv(ops::Readv { fd, iov, count: 1, offset: 0 }),
                Op::Writev(ops::Writev { fd, iov, count: 1, offset: 0 }),
                Op::Readv(ops::Readv { fd, iov, count: 1, offset: -1 }),
                Op::Writev(ops::Writev { fd, iov, count: 1, offset: -1 }),
                Op::Poll(ops::Poll { fd, events: POLLIN }),
                Op::PollMulti(ops::PollMulti { fd, events: POLLOUT }),
                Op::Close(ops::Close { fd }),
                Op::Fsync(ops::Fsync { fd, data_only: true }),
                Op::Splice(ops::Splice { from: fd, from_offset: -1, to: fd, to_offset: -1, len: 1, flags: 0 }),
                Op::Shutdown(ops::Shutdown { fd, how: libc::SHUT_WR }),
            ] {
                let result = rig.run(op);
                // select first answers that it can't watch so high a number.
                let too_high = rig.engine == Engine::Select && fd > 1024 && result == -libc::ERANGE;
                assert!(result == -libc::EBADF || too_high, "{}: {op:?}: {result}", rig.engine.name());
            }
        }
    }

    fn recv_multi_data_and_end(rig) {
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        for round in 0..50u8 {
            a.write_all(&[round; 100]).unwrap();
            assert_eq!(rig.bytes(token, 100), [round; 100]);
        }
        rig.assert_pending(token);
        drop(a);
        let end = rig.next(token);
        assert_eq!((end.result, end.more), (0, false));
    }

    fn recv_multi_in_bulk_says_so(rig) {
        let (a, b) = tcp_pair();
        let sent = pattern(1 << 20, 1);
        let token = rig.submit(recv_multi(&b));
        let copy = sent.clone();
        let writer = std::thread::spawn(move || {
            a.set_nonblocking(false).unwrap();
            (&a).write_all(&copy).unwrap();
        });
        let (mut received, mut full) = (Vec::new(), 0);
        loop {
            let got = rig.next(token);
            if !got.more {
                assert_eq!(got.result, 0);
                break;
            }
            full += usize::from(got.full);
            received.extend(got.data.unwrap());
        }
        writer.join().unwrap();
        assert_eq!(received, sent);
        assert!(full > 0);
    }

    fn recv_multi_of_many_at_once(rig) {
        let mut pairs: Vec<_> = (0..64).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        rig.turn(Some(std::time::Duration::ZERO));
        for round in 0..20u8 {
            for (index, (a, _)) in pairs.iter_mut().enumerate() {
                a.write_all(&[round, index as u8]).unwrap();
            }
            for (index, token) in tokens.iter().enumerate() {
                assert_eq!(rig.bytes(*token, 2), [round, index as u8]);
            }
        }
    }

    fn send_and_its_errors(rig) {
        let (a, mut b) = pair();
        assert_eq!(rig.run(send(&a, bytes(b"hello"))), 5);
        let mut received = [0; 5];
        b.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
        drop(b);
        assert_eq!(rig.run(send(&a, bytes(b"hello"))), -libc::EPIPE);
        assert_eq!(rig.run(send(&socket(), bytes(b"hello"))), -libc::EPIPE);
    }

    fn send_waits_for_room(rig) {
        let (a, b) = pair();
        fill(a.as_raw_fd());
        let token = rig.submit(send(&a, bytes(&[9; 1000])));
        rig.assert_pending(token);
        let memory = buffer(1 << 20);
        while rig.poll(token).is_none_or(|got| {
            assert_eq!(got.result, 1000);
            false
        }) {
            rig.run(recv(&b, memory));
            rig.turn(Some(std::time::Duration::ZERO));
        }
    }

    fn messages_with_several_vectors(rig) {
        let (a, b) = pair();
        let message_out = message(vectors(&mut [bytes(b"one"), bytes(b""), bytes(b"two"), bytes(b"three")]));
        let parts = [buffer(4), buffer(4), buffer(100)];
        let [first, second, third] = parts;
        let memory = (first.as_ptr(), second.as_ptr(), third.as_ptr());
        let message_in = message(vectors(&mut [first, second, third]));
        let receive = rig.submit(Op::RecvMsg(ops::RecvMsg { fd: b.as_raw_fd(), msg: message_in, flags: 0 }));
        rig.assert_pending(receive);
        assert_eq!(rig.run(Op::SendMsg(ops::SendMsg { fd: a.as_raw_fd(), msg: message_out, flags: 0 })), 11);
        assert_eq!(rig.result(receive), 11);
        // SAFETY: the memory is leaked, has these lengths, and is not written to any more.
        let (first, second, third) = unsafe {
            (
                std::slice::from_raw_parts(memory.0, 4),
                std::slice::from_raw_parts(memory.1, 4),
                std::slice::from_raw_parts(memory.2, 3),
            )
        };
        assert_eq!([first, second, third].concat(), b"onetwothree");
    }

    fn datagrams_carry_addresses(rig) {
        let (a, b) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        let memory = buffer(100);
        let pointer = memory.as_ptr();
        let incoming = message(vectors(&mut [memory]));
        let from = buffer(128);
        incoming.msg_name = from.as_mut_ptr().cast();
        incoming.msg_namelen = 128;
        let received = rig.submit(Op::RecvMsg(ops::RecvMsg { fd: b.as_raw_fd(), msg: incoming, flags: 0 }));
        rig.assert_pending(received);
        let outgoing = message(vectors(&mut [bytes(b"data"), bytes(b"gram")]));
        let (addr, len) = address(b.local_addr().unwrap().port());
        outgoing.msg_name = addr.cast_mut().cast();
        outgoing.msg_namelen = len;
        assert_eq!(rig.run(Op::SendMsg(ops::SendMsg { fd: a.as_raw_fd(), msg: outgoing, flags: 0 })), 8);
        assert_eq!(rig.result(received), 8);
        // SAFETY: the memory is leaked and is not written to any more.
        assert_eq!(unsafe { std::slice::from_raw_parts(pointer, 8) }, b"datagram");
        let port = u16::from_be_bytes([from[2], from[3]]);
        assert_eq!(port, a.local_addr().unwrap().port());
        assert_eq!(incoming.msg_namelen as usize, size_of::<libc::sockaddr_in>());
    }

    fn an_fd_travels_in_a_message(rig) {
        let (a, b) = pair();
        let (mut far, near) = pair();
        // SAFETY: the CMSG macros work on a control buffer of sufficient size and alignment.
        unsafe {
            let space = libc::CMSG_SPACE(4) as usize;
            let control: &'static mut [u64] = vec![0u64; space.div_ceil(8)].leak();
            let outgoing = message(vectors(&mut [bytes(b"x")]));
            outgoing.msg_control = control.as_mut_ptr().cast();
            outgoing.msg_controllen = space;
            let header = libc::CMSG_FIRSTHDR(outgoing);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(near.as_raw_fd());
            assert_eq!(rig.run(Op::SendMsg(ops::SendMsg { fd: a.as_raw_fd(), msg: outgoing, flags: 0 })), 1);

            let control: &'static mut [u64] = vec![0u64; space.div_ceil(8)].leak();
            let incoming = message(vectors(&mut [buffer(1)]));
            incoming.msg_control = control.as_mut_ptr().cast();
            incoming.msg_controllen = space;
            let flags = libc::MSG_CMSG_CLOEXEC;
            assert_eq!(rig.run(Op::RecvMsg(ops::RecvMsg { fd: b.as_raw_fd(), msg: incoming, flags })), 1);
            let header = libc::CMSG_FIRSTHDR(incoming);
            let fd = OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned());
            far.write_all(b"through").unwrap();
            let memory = buffer(16);
            assert_eq!(rig.run(recv(&fd, memory)), 7);
        }
    }

    fn accept_one(rig) {
        let listener = listener();
        let token = rig.submit(Op::Accept(ops::Accept { fd: listener.as_raw_fd() }));
        rig.assert_pending(token);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fd = rig.result(token);
        assert!(fd >= 0);
        // SAFETY: a fresh fd; fcntl only reads its flags.
        let server = unsafe {
            assert_ne!(libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK, 0);
            assert_ne!(libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
            OwnedFd::from_raw_fd(fd)
        };
        client.write_all(b"hi").unwrap();
        assert_eq!(rig.run(recv(&server, buffer(8))), 2);
        assert_eq!(rig.run(Op::Accept(ops::Accept { fd: server.as_raw_fd() })), -libc::EINVAL);
    }

    fn accept_many(rig) {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let token = rig.submit(Op::AcceptMulti(ops::AcceptMulti { fd: listener.as_raw_fd() }));
        rig.assert_pending(token);
        let mut clients = Vec::new();
        for round in 0..8u8 {
            for index in 0..12u8 {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(&[round, index]).unwrap();
                clients.push(client);
            }
            for _ in 0..12 {
                let got = rig.next(token);
                assert!(got.more && got.result >= 0, "{got:?}");
                // SAFETY: a fresh fd; fcntl only reads its flags.
                let server = unsafe {
                    assert_ne!(libc::fcntl(got.result, libc::F_GETFL) & libc::O_NONBLOCK, 0);
                    assert_ne!(libc::fcntl(got.result, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
                    OwnedFd::from_raw_fd(got.result)
                };
                let memory = buffer(8);
                assert_eq!(rig.run(recv(&server, memory)), 2);
                assert_eq!(memory[0], round);
            }
        }
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
        let (a, _b) = pair();
        assert_eq!(rig.run(Op::AcceptMulti(ops::AcceptMulti { fd: a.as_raw_fd() })), -libc::EINVAL);
    }

    fn connect_ok_and_refused(rig) {
        let server = listener();
        let port = server.local_addr().unwrap().port();
        let client = socket();
        assert_eq!(rig.run(connect(&client, port)), 0);
        let (mut accepted, _) = server.accept().unwrap();
        assert_eq!(rig.run(send(&client, bytes(b"hello"))), 5);
        let mut received = [0; 5];
        accepted.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"hello");
        drop(server);
        assert_eq!(rig.run(connect(&socket(), port)), -libc::ECONNREFUSED);
    }

    fn shutdown_ends_both_sides(rig) {
        let (a, mut b) = pair();
        let token = rig.submit(recv_multi(&a));
        rig.assert_pending(token);
        assert_eq!(rig.run(Op::Shutdown(ops::Shutdown { fd: a.as_raw_fd(), how: libc::SHUT_WR })), 0);
        assert_eq!(b.read(&mut [0]).unwrap(), 0);
        b.write_all(b"still").unwrap();
        assert_eq!(rig.bytes(token, 5), b"still");
        assert_eq!(rig.run(Op::Shutdown(ops::Shutdown { fd: a.as_raw_fd(), how: libc::SHUT_RD })), 0);
        assert_eq!(rig.result(token), 0);
        assert_eq!(rig.run(Op::Shutdown(ops::Shutdown { fd: socket().as_raw_fd(), how: libc::SHUT_WR })), -libc::ENOTCONN);
    }

    fn poll_once(rig) {
        let (mut a, b) = pair();
        let fd = b.as_raw_fd();
        let readable = rig.submit(Op::Poll(ops::Poll { fd, events: POLLIN }));
        let writable = rig.submit(Op::Poll(ops::Poll { fd, events: POLLOUT }));
        assert_ne!(rig.result(writable) & POLLOUT as i32, 0);
        rig.assert_pending(readable);
        a.write_all(b"x").unwrap();
        assert_ne!(rig.result(readable) & POLLIN as i32, 0);
        assert_ne!(rig.run(Op::Poll(ops::Poll { fd, events: POLLIN })) & POLLIN as i32, 0);
        fill(fd);
        let writable = rig.submit(Op::Poll(ops::Poll { fd, events: POLLOUT }));
        rig.assert_pending(writable);
        drop(a);
        assert!(rig.result(writable) > 0);
    }

    fn a_poll_for_edges_tells_of_all_that_comes(rig) {
        let (mut a, b) = pair();
        let events = POLLIN | ops::EDGES;
        let token = rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events }));
        rig.assert_pending(token);
        let memory = buffer(100);
        for _ in 0..5 {
            a.write_all(b"xyz").unwrap();
            let got = rig.next(token);
            assert!(got.more && got.result & POLLIN as i32 != 0);
            assert_eq!(rig.run(recv(&b, memory)), 3);
        }
        while rig.poll(token).is_some() {}
        rig.cancel(token);
        while rig.next(token).more {}
    }

    fn a_poll_for_edges_says_if_there_are_only_bytes(rig) {
        let events = POLLIN | ops::EDGES;
        let only = POLLIN as i32;
        let (mut a, b) = pair();
        // The ring tells of each, and the last one has it all.
        let token = rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events }));
        rig.assert_pending(token);
        a.write_all(b"xyz").unwrap();
        assert_eq!(rig.next(token).result, only);
        let memory = buffer(100);
        assert_eq!(rig.run(recv(&b, memory)), 3);
        while rig.poll(token).is_some() {}
        a.write_all(b"last").unwrap();
        a.shutdown(std::net::Shutdown::Write).unwrap();
        while rig.next(token).result == only && rig.driver.tells_edges() {}
        assert_eq!(rig.run(recv(&b, memory)), 4);
        assert_eq!(rig.run(recv(&b, memory)), 0);
        rig.cancel(token);
        while rig.next(token).more {}
        // The end may come without bytes, and urgent bytes with others.
        for urgent in [true, false] {
            let (mut a, b) = pair();
            let token = rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events }));
            rig.assert_pending(token);
            if urgent {
                a.write_all(b"before").unwrap();
                // SAFETY: one byte of a static string.
                assert_eq!(unsafe { libc::send(a.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
                a.write_all(b"behind").unwrap();
            } else {
                drop(a);
            }
            while rig.next(token).result == only && rig.driver.tells_edges() {}
            rig.cancel(token);
            while rig.next(token).more {}
        }
    }

    fn poll_multi_is_level_triggered(rig) {
        let (mut a, b) = pair();
        let fd = b.as_raw_fd();
        let token = rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN }));
        rig.assert_pending(token);
        a.write_all(b"xyz").unwrap();
        let memory = buffer(1);
        for _ in 0..3 {
            // The poll completes once per wait while bytes are left.
            for _ in 0..5 {
                let got = rig.next(token);
                assert!(got.more && got.result & POLLIN as i32 != 0);
                assert!(rig.poll(token).is_none());
            }
            assert_eq!(rig.run(recv(&b, memory)), 1);
            while rig.poll(token).is_some() {}
        }
        rig.turn(Some(std::time::Duration::ZERO));
        while rig.poll(token).is_some() {}
        rig.assert_pending(token);
        a.write_all(b"x").unwrap();
        assert!(rig.next(token).more);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
    }

    fn who_polls_stops_nobody(rig) {
        let (mut a, b) = pair();
        let fd = b.as_raw_fd();
        let poll = rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN }));
        rig.assert_pending(poll);
        let memory = buffer(8);
        let receive = rig.submit(recv(&b, memory));
        let once = rig.submit(Op::Poll(ops::Poll { fd, events: POLLIN }));
        rig.assert_pending(receive);
        a.write_all(b"data").unwrap();
        assert!(rig.next(poll).more);
        assert_eq!(rig.result(receive), 4);
        a.write_all(b"x").unwrap();
        assert!(rig.result(once) > 0);
    }

    fn both_directions_wait_at_once(rig) {
        let (a, b) = pair();
        fill(b.as_raw_fd());
        let memory = buffer(8);
        let receive = rig.submit(recv(&b, memory));
        let sends = rig.submit(send(&b, bytes(b"out")));
        rig.assert_pending(receive);
        rig.assert_pending(sends);
        (&a).write_all(b"in").unwrap();
        assert_eq!(rig.result(receive), 2);
        rig.assert_pending(sends);
        let sink = buffer(1 << 20);
        rig.until("the send", |rig| {
            rig.run(recv(&a, sink));
            rig.turn(Some(std::time::Duration::ZERO));
            rig.poll(sends).is_some_and(|got| { assert_eq!(got.result, 3); true })
        });
    }

    fn pipes_of_either_mode(rig) {
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, writer) = pipe(flags);
            let memory = buffer(16);
            let token = rig.submit(read(&reader, memory, -1));
            rig.assert_pending(token);
            assert_eq!(rig.run(write(&writer, bytes(b"pipe"), -1)), 4);
            assert_eq!(rig.result(token), 4);
            assert_eq!(&memory[..4], b"pipe");

            let [first, second] = [buffer(2), buffer(9)];
            let vector = vectors(&mut [first, second]);
            let readv = Op::Readv(ops::Readv { fd: reader.as_raw_fd(), iov: vector.as_ptr(), count: 2, offset: -1 });
            let token = rig.submit(readv);
            rig.assert_pending(token);
            let out = vectors(&mut [bytes(b"ab"), bytes(b"cde")]);
            let writev = Op::Writev(ops::Writev { fd: writer.as_raw_fd(), iov: out.as_ptr(), count: 2, offset: -1 });
            assert_eq!(rig.run(writev), 5);
            assert_eq!(rig.result(token), 5);

            drop(writer);
            assert_eq!(rig.run(read(&reader, memory, -1)), 0);
            let (reader, writer) = pipe(flags);
            drop(reader);
            assert_eq!(rig.run(write(&writer, bytes(b"x"), -1)), -libc::EPIPE);
        }
    }

    fn a_full_pipe_makes_the_writer_wait(rig) {
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, writer) = pipe(flags);
            // The op writes more than a pipe holds. On a blocking pipe, too, the rest must not hold up the loop.
            let block = pattern(200_000, 5).leak();
            let mut written = 0;
            let mut received = Vec::new();
            let memory = buffer(65536);
            let mut token = rig.submit(write(&writer, block, -1));
            while written < block.len() {
                rig.turn(Some(std::time::Duration::ZERO));
                while let Some(got) = rig.poll(token) {
                    assert!(got.result > 0, "{}: {got:?}", rig.engine.name());
                    written += got.result as usize;
                    if written < block.len() {
                        token = rig.submit(write(&writer, &block[written..], -1));
                    }
                }
                if received.len() < block.len() {
                    let count = rig.run(read(&reader, memory, -1));
                    received.extend_from_slice(&memory[..count as usize]);
                }
            }
            while received.len() < block.len() {
                let count = rig.run(read(&reader, memory, -1));
                received.extend_from_slice(&memory[..count as usize]);
            }
            assert_eq!(received, *block);
        }
    }

    fn a_terminal_is_read_without_blocking(rig) {
        let (mut near, mut far) = (0, 0);
        // SAFETY: two ints to write into, and null for the name and the settings.
        let opened = unsafe {
            libc::openpty(&raw mut near, &raw mut far, std::ptr::null_mut(), std::ptr::null(), std::ptr::null())
        };
        assert_eq!(opened, 0);
        // SAFETY: fresh fds; only the flags of the far end change.
        let (near, far) = unsafe {
            let flags = libc::fcntl(far, libc::F_GETFL);
            libc::fcntl(far, libc::F_SETFL, flags | libc::O_NONBLOCK);
            (OwnedFd::from_raw_fd(near), OwnedFd::from_raw_fd(far))
        };
        let memory = buffer(32);
        let token = rig.submit(read(&far, memory, -1));
        rig.assert_pending(token);
        assert_eq!(rig.run(write(&near, bytes(b"line\n"), -1)), 5);
        assert_eq!(rig.result(token), 5);
        assert_eq!(&memory[..5], b"line\n");
        let token = rig.submit(read(&far, memory, -1));
        rig.assert_pending(token);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
    }

    fn nothing_is_answered_again(rig) {
        // Some files can't wait inside the kernel, and a flag can ask the kernel not to wait.
        let (mut a, b) = pair();
        let memory = buffer(512);
        let token = rig.submit(Op::Recv(ops::Recv { fd: b.as_raw_fd(), buf: memory.as_mut_ptr(), len: 8, flags: libc::MSG_DONTWAIT }));
        rig.assert_pending(token);
        a.write_all(b"later").unwrap();
        assert_eq!(rig.result(token), 5);

        // SAFETY: a fresh fd, and a path that ends in a zero byte.
        let (directory, inotify) = unsafe {
            let directory = Directory::new();
            let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(fd >= 0 && libc::inotify_add_watch(fd, path(&directory.0), libc::IN_CREATE) >= 0);
            (directory, OwnedFd::from_raw_fd(fd))
        };
        for round in 0..2 {
            let token = rig.submit(read(&inotify, memory, -1));
            rig.assert_pending(token);
            std::fs::write(directory.0.join(format!("file{round}")), b"").unwrap();
            assert!(rig.result(token) > 0);
        }
        let token = rig.submit(read(&inotify, memory, -1));
        rig.assert_pending(token);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
    }

    fn stats_count(rig) {
        let (mut a, b) = pair();
        let before = rig.driver.stats().clone();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        assert_eq!(rig.driver.stats().in_flight, before.in_flight + 1);
        a.write_all(b"x").unwrap();
        rig.bytes(token, 1);
        drop(a);
        assert_eq!(rig.result(token), 0);
        let stats = rig.driver.stats();
        let of = |counts: Vec<(&'static str, u64)>| counts.into_iter().find(|(name, _)| *name == "recv_multi");
        assert_eq!(of(stats.submitted().collect()), Some(("recv_multi", 1)));
        assert_eq!(of(stats.completed().collect()), Some(("recv_multi", 2)));
        assert!(stats.syscalls > before.syscalls);
        assert_eq!(stats.in_flight, 0);
        assert!(stats.in_flight_max >= 1);
    }
}
