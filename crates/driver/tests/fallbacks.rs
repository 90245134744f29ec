//! A ring behaves in the same way when any opcode or feature is refused, and reports each refusal in a line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Config, Engine, Loan, Op, OpKind, open, ops};

fn denied(words: &[&str]) -> Config {
    Config {
        deny: words.iter().map(|word| (*word).to_string()).collect(),
        ..Config::default()
    }
}

/// Runs everything that every ring must be able to do, whatever the kernel refuses.
fn everything(rig: &mut Rig) {
    connections(rig);
    polls(rig);
    files(rig);
    pipes(rig);
    cancels(rig);
    closes(rig);
    waits(rig);
}

fn connections(rig: &mut Rig) {
    let listener = listener();
    let port = listener.local_addr().unwrap().port();
    let accepting = rig.submit(Op::AcceptMulti(ops::AcceptMulti {
        fd: listener.as_raw_fd(),
    }));
    rig.assert_pending(accepting);
    for round in 0..3u8 {
        let client = socket();
        assert_eq!(rig.run(connect(&client, port)), 0);
        let got = rig.next(accepting);
        assert!(got.more && got.result >= 0, "{got:?}");
        // SAFETY: a fresh fd.
        let server = unsafe { OwnedFd::from_raw_fd(got.result) };
        let (at_server, at_client) = (rig.submit(recv_multi(&server)), rig.submit(recv_multi(&client)));
        rig.assert_pending(at_server);
        for size in [1, 1000, 100_000] {
            let data: &'static [u8] = pattern(size, u64::from(round)).leak();
            let mut sent = 0;
            let mut received = Vec::new();
            while sent < size || received.len() < size {
                if sent < size {
                    let count = rig.run(send(&client, &data[sent..]));
                    assert!(count > 0, "{count}");
                    sent += count as usize;
                }
                received.extend(rig.bytes(at_server, 1));
            }
            assert_eq!(received, data);
        }
        let out = message(vectors(&mut [bytes(b"to "), bytes(b"client")]));
        assert_eq!(
            rig.run(Op::SendMsg(ops::SendMsg {
                fd: server.as_raw_fd(),
                msg: out,
                flags: 0
            })),
            9
        );
        assert_eq!(rig.bytes(at_client, 9), b"to client");
        assert_eq!(
            rig.run(Op::Shutdown(ops::Shutdown {
                fd: server.as_raw_fd(),
                how: libc::SHUT_WR
            })),
            0
        );
        assert_eq!(rig.result(at_client), 0);
        drop(client);
        assert_eq!(rig.result(at_server), 0);
    }
    rig.cancel(accepting);
    assert_eq!(rig.result(accepting), CANCELED);

    let one = rig.submit(Op::Accept(ops::Accept {
        fd: listener.as_raw_fd(),
    }));
    rig.assert_pending(one);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let fd = rig.result(one);
    // SAFETY: a fresh fd.
    let server = unsafe { OwnedFd::from_raw_fd(fd) };
    let memory = buffer(16);
    let single = rig.submit(recv(&server, memory));
    rig.assert_pending(single);
    client.write_all(b"single").unwrap();
    assert_eq!(rig.result(single), 6);
    let into = message(vectors(&mut [buffer(3), buffer(3)]));
    let vectored = rig.submit(Op::RecvMsg(ops::RecvMsg {
        fd,
        msg: into,
        flags: 0,
    }));
    rig.assert_pending(vectored);
    client.write_all(b"vector").unwrap();
    assert_eq!(rig.result(vectored), 6);
    reset_on_close(&client);
    let multi = rig.submit(recv_multi(&server));
    rig.assert_pending(multi);
    drop(client);
    assert_eq!(rig.result(multi), -libc::ECONNRESET);
    drop(listener);
    assert_eq!(rig.run(connect(&socket(), port)), -libc::ECONNREFUSED);
    let unconnected = socket();
    for op in [recv(&unconnected, memory), recv_multi(&unconnected)] {
        assert_eq!(rig.run(op), -libc::ENOTCONN);
    }
}

fn polls(rig: &mut Rig) {
    let (mut a, b) = pair();
    let fd = b.as_raw_fd();
    let multi = rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN }));
    rig.assert_pending(multi);
    a.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert!(rig.next(multi).more);
    }
    assert!(rig.run(Op::Poll(ops::Poll { fd, events: POLLOUT })) > 0);
    rig.cancel(multi);
    assert_eq!(rig.result(multi), CANCELED);
    let mut byte = [0];
    let mut receiver = &b;
    assert_eq!(receiver.read(&mut byte).unwrap(), 1);
    let events = POLLIN | ops::EDGES;
    let edges = rig.submit(Op::PollMulti(ops::PollMulti { fd, events }));
    rig.assert_pending(edges);
    for _ in 0..3 {
        a.write_all(b"x").unwrap();
        assert!(rig.next(edges).more);
        assert_eq!(receiver.read(&mut byte).unwrap(), 1);
        while rig.poll(edges).is_some() {}
    }
    rig.cancel(edges);
    while rig.next(edges).more {}
}

fn files(rig: &mut Rig) {
    let directory = Directory::new();
    let name = path(&directory.0.join("file"));
    let (dir, flags, mode) = (libc::AT_FDCWD, libc::O_RDWR | libc::O_CREAT, 0o600);
    let fd = rig.run(Op::OpenAt(ops::OpenAt {
        dir,
        path: name,
        flags,
        mode,
        waits: false,
    }));
    assert!(fd >= 0, "{fd}");
    // SAFETY: a fresh fd.
    let fd = apart(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: only the close below closes the fd.
    let file = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
    assert_eq!(rig.run(write(&*file, bytes(b"0123456789"), 0)), 10);
    let out = vectors(&mut [bytes(b"ab"), bytes(b"c")]);
    assert_eq!(
        rig.run(Op::Writev(ops::Writev {
            fd,
            iov: out.as_ptr(),
            count: 2,
            offset: 3
        })),
        3
    );
    assert_eq!(rig.run(Op::Fsync(ops::Fsync { fd, data_only: true })), 0);
    let memory = buffer(16);
    assert_eq!(rig.run(read(&*file, memory, 0)), 10);
    assert_eq!(&memory[..10], b"012abc6789");
    let loan = Loan::new(16).unwrap();
    let lent = ops::Read {
        fd,
        buf: loan.ptr(),
        len: 16,
        offset: 0,
    };
    assert_eq!(rig.run(Op::Read(lent)), 10);
    // SAFETY: the op is over.
    let got = unsafe { std::slice::from_raw_parts(loan.ptr(), 10) };
    assert_eq!(got, b"012abc6789");
    let into = vectors(&mut [buffer(4), buffer(20)]);
    assert_eq!(
        rig.run(Op::Readv(ops::Readv {
            fd,
            iov: into.as_ptr(),
            count: 2,
            offset: 0
        })),
        10
    );
    // SAFETY: all zeros is a valid statx.
    let status: &'static mut libc::statx = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
    let buf = std::ptr::from_mut(status);
    assert_eq!(
        rig.run(Op::Statx(ops::Statx {
            dir,
            path: name,
            flags: 0,
            mask: libc::STATX_SIZE,
            buf
        })),
        0
    );
    // SAFETY: the op is over and the memory is leaked.
    assert_eq!(unsafe { (*buf).stx_size }, 10);
    let (reader, writer) = pipe(0);
    let to = writer.as_raw_fd();
    assert_eq!(
        rig.run(Op::Splice(ops::Splice {
            from: fd,
            from_offset: 2,
            to,
            to_offset: -1,
            len: 5,
            flags: 0
        })),
        5
    );
    assert_eq!(rig.run(read(&reader, memory, -1)), 5);
    assert_eq!(&memory[..5], b"2abc6");
    assert_eq!(rig.run(Op::Close(ops::Close { fd })), 0);
    assert_eq!(rig.run(Op::Close(ops::Close { fd })), -libc::EBADF);
    let missing = path(&directory.0.join("missing"));
    assert_eq!(
        rig.run(Op::OpenAt(ops::OpenAt {
            dir,
            path: missing,
            flags: 0,
            mode,
            waits: false,
        })),
        -libc::ENOENT
    );
}

fn pipes(rig: &mut Rig) {
    for flags in [0, libc::O_NONBLOCK] {
        let (reader, writer) = pipe(flags);
        let memory = buffer(16);
        let token = rig.submit(read(&reader, memory, -1));
        rig.assert_pending(token);
        assert_eq!(rig.run(write(&writer, bytes(b"pipe"), -1)), 4);
        assert_eq!(rig.result(token), 4);
        let into = vectors(&mut [buffer(4)]);
        let token = rig.submit(Op::Readv(ops::Readv {
            fd: reader.as_raw_fd(),
            iov: into.as_ptr(),
            count: 1,
            offset: -1,
        }));
        rig.assert_pending(token);
        let out = vectors(&mut [bytes(b"more")]);
        let (fd, iov) = (writer.as_raw_fd(), out.as_ptr());
        assert_eq!(
            rig.run(Op::Writev(ops::Writev {
                fd,
                iov,
                count: 1,
                offset: -1
            })),
            4
        );
        assert_eq!(rig.result(token), 4);
    }
}

fn cancels(rig: &mut Rig) {
    let (mut a, b) = pair();
    let memory = buffer(8);
    fill(b.as_raw_fd());
    let listener = listener();
    let fd = listener.as_raw_fd();
    for op in [
        recv(&b, memory),
        recv_multi(&b),
        read(&b, memory, -1),
        send(&b, memory),
        Op::Accept(ops::Accept { fd }),
        Op::AcceptMulti(ops::AcceptMulti { fd }),
        Op::Poll(ops::Poll { fd, events: POLLIN }),
    ] {
        let token = rig.submit(op);
        rig.assert_pending(token);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED, "{op:?}");
    }
    a.write_all(b"mine").unwrap();
    assert_eq!(rig.run(recv(&b, memory)), 4);
}

fn closes(rig: &mut Rig) {
    for _ in 0..50 {
        let (mut a, b) = pair();
        let fd = std::os::fd::IntoRawFd::into_raw_fd(b);
        let tokens = [
            rig.submit(Op::RecvMulti(ops::RecvMulti { fd })),
            rig.submit(Op::Recv(ops::Recv {
                fd,
                buf: buffer(8).as_mut_ptr(),
                len: 8,
                flags: 0,
            })),
            rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN })),
        ];
        tokens.iter().for_each(|token| rig.assert_pending(*token));
        let close = rig.submit(Op::Close(ops::Close { fd }));
        for token in tokens {
            assert_eq!(rig.result(token), CANCELED);
        }
        assert_eq!(rig.result(close), 0);
        a.set_nonblocking(false).unwrap();
        assert_eq!(a.read(&mut [0]).unwrap(), 0);
    }
}

fn waits(rig: &mut Rig) {
    let begun = Instant::now();
    rig.turn(Some(Duration::from_millis(3)));
    assert!(begun.elapsed() >= Duration::from_millis(3));
    let waker = rig.driver.waker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        waker.wake();
    });
    let begun = Instant::now();
    rig.turn(Some(Duration::from_secs(8)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    thread.join().unwrap();
}

macro_rules! without {
    ($($name:ident: $($word:literal),* => $($mention:literal),*;)+) => {
        $(
            #[test]
            fn $name() {
                if let Some(mut rig) = Rig::with(Engine::IoUring, &denied(&[$($word),*])) {
                    everything(&mut rig);
                    let lines = rig.driver.stats().fallbacks.join("\n");
                    let mentions: &[&str] = &[$($mention),*];
                    for mention in mentions {
                        assert!(lines.contains(mention), "no word of {mention} in:\n{lines}");
                    }
                    if mentions.is_empty() {
                        assert_eq!(lines, "");
                    }
                }
            }
        )+
    };
}

without! {
    nothing: => ;
    accept: "accept" => "accept_multi", "accept (";
    async_cancel_is_needed_but_openat_is_not: "openat" => "openat";
    buf_ring: "buf_ring" => "recv_multi (buf_ring";
    close: "close" => "close";
    connect_op: "connect" => "connect";
    coop_taskrun: "defer_taskrun", "single_issuer", "coop_taskrun" => "defer_taskrun", "single_issuer", "coop_taskrun";
    defer_taskrun: "defer_taskrun" => "defer_taskrun";
    ext_arg: "ext_arg" => "ext_arg";
    ext_arg_and_everything: "ext_arg", "defer_taskrun", "single_issuer", "coop_taskrun", "plain" => "ext_arg", "plain";
    fsync: "fsync" => "fsync";
    multishot_accept: "multishot_accept" => "accept_multi (multishot_accept";
    multishot_poll: "multishot_poll" => "poll_multi (multishot_poll";
    multishot_recv: "multishot_recv" => "recv_multi (multishot_recv";
    old_kernel: "defer_taskrun", "single_issuer", "coop_taskrun", "plain", "ext_arg", "multishot_recv", "multishot_accept",
        "multishot_poll", "no_iowait" => "plain";
    operations_on_files: "openat", "statx", "fsync", "read", "write" => "openat", "statx", "fsync", "read", "write";
    lent_memory: "read_fixed" => "read_fixed (denied";
    recv_op: "recv" => "recv_multi", "recv (";
    send_op: "send" => "send (";
    sendmsg_and_recvmsg: "sendmsg", "recvmsg" => "sendmsg", "recvmsg";
    shutdown: "shutdown" => "shutdown";
    single_issuer: "defer_taskrun", "single_issuer" => "single_issuer";
    splice: "splice" => "splice";
    vectors_and_splice: "readv", "writev", "splice" => "readv", "writev";
    all_but_polls: "accept", "close", "connect", "fsync", "openat", "read", "readv", "recv", "recvmsg", "send",
        "sendmsg", "shutdown", "splice", "statx", "write", "writev" => "splice", "recvmsg";
}

// The other engines run the same checks: so a failure only on the ring is a fault of the ring.
on_every_engine! {
    fn everything_on_every_engine(rig) {
        everything(&mut rig);
    }
}

#[test]
fn a_ring_that_cannot_wait_or_cancel_is_none() {
    for word in ["poll_add", "async_cancel"] {
        match open(Engine::IoUring, &denied(&[word])) {
            Ok(_) => panic!("opened without {word}"),
            Err(error) if open(Engine::IoUring, &Config::default()).is_ok() => {
                assert!(error.to_string().contains(word), "{error}");
            }
            Err(error) => report_missing(Engine::IoUring, &error),
        }
    }
    // Denials of the ring do not affect the other engines.
    assert!(open(Engine::Epoll, &denied(&["poll_add"])).is_ok());
}

#[test]
fn features_tell_what_was_denied() {
    let Some(rig) = Rig::with(Engine::IoUring, &denied(&["recv", "multishot_accept"])) else {
        return;
    };
    let features = rig.driver.features().unwrap();
    assert!(!features.native(OpKind::Recv) && !features.native(OpKind::RecvMulti));
    assert!(!features.native(OpKind::AcceptMulti) && features.native(OpKind::Accept));
    let has = |list: &[(&str, bool)], name: &str| list.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!(
        !has(&features.opcodes, "recv")
            && has(&features.opcodes, "accept")
            && has(&features.opcodes, "poll_add")
    );
    assert!(!has(&features.flags, "multishot_accept") && !has(&features.flags, "buf_ring"));
}
