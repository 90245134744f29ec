//! Neither a shutdown with ops in flight nor a drop without a shutdown leaves anything behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Config, Engine, Op, Submitted, open, ops};

/// Lets only one test run at a time, because each counts the files of the process.
static ALONE: Mutex<()> = Mutex::new(());

fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

struct Count(
    usize,
    #[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>,
);

impl Count {
    fn begin() -> Count {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Count(files(), alone)
    }

    /// Waits, because the kernel drops a ring's last files some time after the ring is closed.
    fn end(self, name: &str) {
        let begun = Instant::now();
        while files() != self.0 {
            assert!(
                begun.elapsed() < LIMIT,
                "{name}: {} files before, {} after",
                self.0,
                files()
            );
            std::thread::yield_now();
        }
    }
}

/// The far end must see the end of the stream: it comes only when nothing refers to the near end's file any more.
fn assert_really_closed(mut far: impl Read, name: &str) {
    let mut rest = Vec::new();
    let result = far.read_to_end(&mut rest);
    assert!(result.is_ok(), "{name}: {result:?}");
}

fn engines() -> impl Iterator<Item = Engine> {
    Engine::ALL
        .into_iter()
        .filter(|engine| match open(*engine, &Config::default()) {
            Ok(_) => true,
            Err(error) => {
                report_missing(*engine, &error);
                false
            }
        })
}

#[test]
fn shutdown_with_everything_in_flight() {
    let count = Count::begin();
    for engine in engines() {
        let name = engine.name();
        let (a, b) = tcp_pair();
        let (reader, _writer) = pipe(0);
        let listener = listener();
        fill(b.as_raw_fd());
        // The test frees this memory after the shutdown has reported that no op is in flight, so it must not leak it.
        let mut memory = vec![0u8; 100_000];
        let mut rig = Rig::with(engine, &Config::default()).unwrap();
        let ops = [
            recv_multi(&b),
            recv(&b, &mut memory[..8]),
            send(&b, &memory[8..]),
            Op::AcceptMulti(ops::AcceptMulti {
                fd: listener.as_raw_fd(),
            }),
            Op::Accept(ops::Accept {
                fd: listener.as_raw_fd(),
            }),
            Op::PollMulti(ops::PollMulti {
                fd: b.as_raw_fd(),
                events: POLLIN,
            }),
            read(&reader, &mut memory[50_000..50_010], -1),
        ];
        let tokens: Vec<_> = ops.into_iter().map(|op| rig.submit(op)).collect();
        tokens.iter().for_each(|token| rig.assert_pending(*token));
        // This op never reaches the kernel.
        rig.submit(recv_multi(&a));
        let begun = Instant::now();
        assert_eq!(rig.driver.shutdown(LIMIT), 0, "{name}");
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{name}: {:?}",
            begun.elapsed()
        );
        drop(memory);
        drop(rig);
        drop(b);
        a.set_nonblocking(false).unwrap();
        a.set_read_timeout(Some(LIMIT)).unwrap();
        assert_really_closed(&a, name);
    }
    count.end("shutdown");
}

#[test]
fn shutdown_closes_what_nobody_will_take() {
    let count = Count::begin();
    for engine in engines() {
        let listener = listener();
        let mut rig = Rig::with(engine, &Config::default()).unwrap();
        let token = rig.submit(Op::AcceptMulti(ops::AcceptMulti {
            fd: listener.as_raw_fd(),
        }));
        rig.assert_pending(token);
        let clients: Vec<_> = (0..5)
            .map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap())
            .collect();
        let directory = Directory::new();
        let file = directory.0.join("file");
        std::fs::write(&file, b"x").unwrap();
        for _ in 0..5 {
            rig.submit(Op::OpenAt(ops::OpenAt {
                dir: libc::AT_FDCWD,
                path: path(&file),
                flags: libc::O_RDONLY,
                mode: 0,
                waits: false,
            }));
        }
        rig.driver.flush().unwrap();
        assert_eq!(rig.driver.shutdown(LIMIT), 0, "{}", engine.name());
        drop(clients);
    }
    count.end("shutdown with results under way");
}

#[test]
fn shutdown_keeps_its_limit() {
    // Opening a fifo blocks a pool thread until another process opens the other end.
    let count = Count::begin();
    for engine in engines() {
        let directory = Directory::new();
        let fifo = directory.0.join("fifo");
        // SAFETY: a path that ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(path(&fifo), 0o600) }, 0);
        let mut driver = open(engine, &Config::default()).unwrap();
        let op = Op::OpenAt(ops::OpenAt {
            dir: libc::AT_FDCWD,
            path: path(&fifo),
            flags: libc::O_WRONLY,
            mode: 0,
            waits: false,
        });
        // SAFETY: a leaked path.
        assert_eq!(unsafe { driver.submit(1, op) }, Submitted::Pending);
        driver
            .wait(Some(Duration::from_millis(20)), &mut Vec::new())
            .unwrap();
        if engine != Engine::IoUring {
            wait_for_an_open();
        }
        let begun = Instant::now();
        let left = driver.shutdown(Duration::from_millis(50));
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{}: {:?}",
            engine.name(),
            begun.elapsed()
        );
        if engine != Engine::IoUring {
            assert_eq!(left, 1, "{}", engine.name());
        }
        let begun = Instant::now();
        drop(driver);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{}: {:?}",
            engine.name(),
            begun.elapsed()
        );
        // Lets the pool thread go on. It closes the fd that it has opened.
        drop(
            std::fs::File::options()
                .read(true)
                .write(true)
                .open(&fifo)
                .unwrap(),
        );
    }
    // The pool thread may still hold the waker's event for a moment.
    count.end("limit");
}

#[test]
fn drop_without_shutdown() {
    let count = Count::begin();
    for engine in engines() {
        for started in [false, true] {
            let (a, b) = pair();
            let listener = listener();
            let mut rig = Rig::with(engine, &Config::default()).unwrap();
            let token = rig.submit(recv_multi(&b));
            rig.submit(recv(&b, buffer(64)));
            rig.submit(Op::Poll(ops::Poll {
                fd: b.as_raw_fd(),
                events: POLLIN,
            }));
            rig.submit(Op::AcceptMulti(ops::AcceptMulti {
                fd: listener.as_raw_fd(),
            }));
            if started {
                rig.assert_pending(token);
            }
            // Replaces the driver, so that the rig does not check the dropped one.
            let driver = std::mem::replace(&mut rig.driver, open(Engine::Poll, &Config::default()).unwrap());
            drop(driver);
            drop(b);
            a.set_nonblocking(false).unwrap();
            a.set_read_timeout(Some(LIMIT)).unwrap();
            assert_really_closed(&a, engine.name());
        }
    }
    count.end("drop");
}

#[test]
fn drop_in_another_thread() {
    let count = Count::begin();
    for engine in engines() {
        let (mut a, b) = pair();
        let driver = std::thread::spawn(move || {
            let mut rig = Rig::with(engine, &Config::default()).unwrap();
            let token = rig.submit(recv_multi(&b));
            rig.assert_pending(token);
            rig.driver.unbind();
            let driver = std::mem::replace(&mut rig.driver, open(Engine::Poll, &Config::default()).unwrap());
            (driver, b)
        });
        let (driver, b) = driver.join().unwrap();
        drop(driver);
        drop(b);
        a.set_nonblocking(false).unwrap();
        let _ = a.write_all(b"x");
        let _ = a.read(&mut [0]);
    }
    count.end("drop in another thread");
}

#[test]
fn many_engines_one_after_another() {
    let count = Count::begin();
    for engine in engines() {
        for _ in 0..40 {
            let (mut a, b) = pair();
            let mut rig = Rig::with(
                engine,
                &Config {
                    entries: 8,
                    ..Config::default()
                },
            )
            .unwrap();
            let token = rig.submit(recv_multi(&b));
            a.write_all(b"x").unwrap();
            rig.bytes(token, 1);
        }
    }
    count.end("engines");
}

#[test]
fn connections_come_and_go() {
    let count = Count::begin();
    for engine in engines() {
        let mut rig = Rig::with(engine, &Config::default()).unwrap();
        let listener = listener();
        let accepting = rig.submit(Op::AcceptMulti(ops::AcceptMulti {
            fd: listener.as_raw_fd(),
        }));
        for round in 0..300u32 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let fd = rig.next(accepting).result;
            let receiving = rig.submit(Op::RecvMulti(ops::RecvMulti { fd }));
            client.write_all(&round.to_le_bytes()).unwrap();
            assert_eq!(rig.bytes(receiving, 4), round.to_le_bytes());
            if round % 2 == 0 {
                drop(client);
                assert_eq!(rig.result(receiving), 0);
            }
            let close = rig.submit(Op::Close(ops::Close { fd }));
            assert_eq!(rig.result(close), 0);
        }
    }
    count.end("connections");
}
