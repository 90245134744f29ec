//! The program closes fds without telling the engine, while a duplicate keeps their file open. Such a file must not
//! end a wait early, and the next file with the same number must not get its events.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Engine, Op, ops};

/// Asserts that nothing is reported: a wait lasts until its timeout. The waits before it may end early because of a
/// file that is no longer watched: the engine learns of it that way.
fn assert_quiet(rig: &mut Rig) {
    let name = rig.engine.name();
    for _ in 0..3 {
        rig.turn(Some(Duration::ZERO));
    }
    let limit = Duration::from_millis(20);
    let (begun, before) = (Instant::now(), rig.driver.stats().syscalls);
    rig.turn(Some(limit));
    let lasted = begun.elapsed();
    assert!(lasted >= limit, "{name}: woken after {lasted:?} by nothing");
    assert_eq!(rig.driver.stats().syscalls, before + 1, "{name}");
}

fn rebuilds(rig: &Rig) -> u64 {
    rig.driver.stats().rebuilds
}

fn close(fd: RawFd) {
    // SAFETY: the caller owns the fd and has given up the `OwnedFd`.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

/// Closes a number if it is open, and gives the number to another file.
fn put_at(number: RawFd, file: OwnedFd) {
    // SAFETY: the caller owns the number.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
}

/// An end that the test closes by its number, a duplicate that keeps its file open, and the peer. No other test's new
/// file gets this number, because new files get the lowest free number.
fn trap() -> (RawFd, UnixStream, UnixStream) {
    static NEXT: AtomicI32 = AtomicI32::new(700);
    let (end, peer) = pair();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    put_at(number, end.try_clone().unwrap().into());
    (number, end, peer)
}

fn watch(fd: RawFd, events: u32) -> Op {
    Op::PollMulti(ops::PollMulti { fd, events })
}

on_every_engine! {
    fn a_watch_that_was_cancelled_first(rig) {
        let (end, _duplicate, mut peer) = trap();
        for op in [watch(end, POLLIN), Op::RecvMulti(ops::RecvMulti { fd: end }), recv(&_duplicate, buffer(8))] {
            let token = rig.submit(op);
            rig.assert_pending(token);
            rig.cancel(token);
            assert_eq!(rig.result(token), CANCELED);
        }
        close(end);
        peer.write_all(b"x").unwrap();
        assert_quiet(&mut rig);
        // The engine no longer watched the fd when it was closed.
        assert_eq!(rebuilds(&rig), 0);
    }

    fn an_op_that_was_done_first(rig) {
        let (end, duplicate, mut peer) = trap();
        let memory = buffer(8);
        let receive = Op::Recv(ops::Recv { fd: end, buf: memory.as_mut_ptr(), len: 8, flags: 0 });
        let poll = Op::Poll(ops::Poll { fd: end, events: POLLIN });
        for op in [receive, poll] {
            let token = rig.submit(op);
            rig.assert_pending(token);
            peer.write_all(b"x").unwrap();
            assert_eq!(rig.result(token), 1);
        }
        // In the next wait, the engine stops watching the fd.
        rig.turn(Some(Duration::ZERO));
        close(end);
        assert_quiet(&mut rig);
        assert_eq!(rebuilds(&rig), 0);
        drop(duplicate);
    }

    fn an_op_that_was_done_before_the_same_turn(rig) {
        let (end, duplicate, mut peer) = trap();
        let poll = rig.submit(Op::Poll(ops::Poll { fd: end, events: POLLIN }));
        rig.assert_pending(poll);
        peer.write_all(b"x").unwrap();
        assert_eq!(rig.result(poll), 1);
        close(end);
        assert_quiet(&mut rig);
        peer.write_all(b"y").unwrap();
        assert_quiet(&mut rig);
        assert!(rebuilds(&rig) <= u64::from(rig.engine == Engine::Epoll));
        drop(duplicate);
    }

    fn the_next_owner_of_the_number_is_polled_in_the_same_turn(rig) {
        let (end, duplicate, mut peer) = trap();
        let first = rig.submit(Op::Poll(ops::Poll { fd: end, events: POLLIN }));
        rig.assert_pending(first);
        peer.write_all(b"x").unwrap();
        assert_eq!(rig.result(first), 1);
        let (next, mut next_peer) = pair();
        put_at(end, next.into());
        let second = rig.submit(Op::Poll(ops::Poll { fd: end, events: POLLIN }));
        rig.assert_pending(second);
        next_peer.write_all(b"y").unwrap();
        assert_eq!(rig.result(second), 1);
        drop(duplicate);
        close(end);
    }

    fn a_poll_that_is_renewed_in_its_turn_costs_one_call_more(rig) {
        let (mut peer, mut end) = pair();
        let fd = end.as_raw_fd();
        let polls = |rig: &mut Rig| rig.submit(Op::Poll(ops::Poll { fd, events: POLLIN }));
        let mut token = polls(&mut rig);
        let before = rig.driver.stats().syscalls;
        for _ in 0..100 {
            peer.write_all(b"x").unwrap();
            assert_eq!(rig.result(token), 1);
            end.read_exact(&mut [0]).unwrap();
            token = polls(&mut rig);
        }
        let calls = rig.driver.stats().syscalls - before;
        assert!(calls <= 210, "{}: {calls} for 100 polls", rig.engine.name());
        rig.cancel(token);
    }

    fn a_watch_that_is_cancelled_too_late(rig) {
        let (end, mut duplicate, mut peer) = trap();
        let token = rig.submit(watch(end, POLLIN));
        rig.assert_pending(token);
        close(end);
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
        assert_quiet(&mut rig);
        for _ in 0..3 {
            peer.write_all(b"x").unwrap();
            assert_quiet(&mut rig);
        }
        // The engine watches the file under its other number as usual, and no byte is lost.
        let other = rig.submit(Op::RecvMulti(ops::RecvMulti { fd: duplicate.as_raw_fd() }));
        assert_eq!(rig.bytes(other, 3), b"xxx");
        peer.write_all(b"y").unwrap();
        assert_eq!(rig.bytes(other, 1), b"y");
        rig.cancel(other);
        assert_eq!(rig.result(other), CANCELED);
        peer.write_all(b"z").unwrap();
        assert_quiet(&mut rig);
        assert_eq!(duplicate.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(rebuilds(&rig), u64::from(rig.engine == Engine::Epoll));
    }

    fn the_next_owner_of_the_number_hears_nothing(rig) {
        let (end, _duplicate, mut peer) = trap();
        let token = rig.submit(watch(end, POLLIN));
        rig.assert_pending(token);
        peer.write_all(b"x").unwrap();
        let (next, mut next_peer) = pair();
        put_at(end, next.into());
        rig.cancel(token);
        while rig.next(token).more {}
        let owner = rig.submit(watch(end, POLLIN));
        rig.assert_pending(owner);
        assert_quiet(&mut rig);
        next_peer.write_all(b"y").unwrap();
        assert!(rig.next(owner).more);
        rig.cancel(owner);
        while rig.next(owner).more {}
        assert_quiet(&mut rig);
        assert_eq!(rebuilds(&rig), u64::from(rig.engine == Engine::Epoll));
        close(end);
    }

    fn the_number_comes_back_to_the_file(rig) {
        let (end, duplicate, mut peer) = trap();
        let first = rig.submit(watch(end, POLLIN));
        rig.assert_pending(first);
        let (next, mut next_peer) = pair();
        let next_duplicate = next.try_clone().unwrap();
        put_at(end, next.into());
        rig.cancel(first);
        assert_eq!(rig.result(first), CANCELED);
        let second = rig.submit(watch(end, POLLIN));
        rig.assert_pending(second);
        put_at(end, duplicate.try_clone().unwrap().into());
        rig.cancel(second);
        assert_eq!(rig.result(second), CANCELED);
        let third = rig.submit(watch(end, POLLIN));
        rig.assert_pending(third);
        // Only the last of the three watches of this number counts.
        next_peer.write_all(b"y").unwrap();
        rig.assert_pending(third);
        assert_quiet(&mut rig);
        peer.write_all(b"x").unwrap();
        assert!(rig.next(third).more);
        rig.cancel(third);
        while rig.next(third).more {}
        assert_quiet(&mut rig);
        drop((duplicate, next_duplicate));
        close(end);
    }

    fn one_direction_is_cancelled_too_late(rig) {
        let (end, _duplicate, _peer) = trap();
        let reads = rig.submit(watch(end, POLLIN));
        let writes = rig.submit(watch(end, POLLOUT));
        assert!(rig.next(writes).more);
        close(end);
        rig.cancel(writes);
        while rig.next(writes).more {}
        if rig.is_uring() {
            // The ring still holds the closed file.
            rig.assert_pending(reads);
            rig.cancel(reads);
            assert_eq!(rig.result(reads), CANCELED);
        } else {
            assert_eq!(rig.result(reads), -libc::EBADF);
        }
        assert_quiet(&mut rig);
    }

    fn the_others_go_on(rig) {
        let memory: Vec<_> = (0..20).map(|_| buffer(8)).collect();
        let others: Vec<_> = (0..20).map(|_| pair()).collect();
        let singles: Vec<_> = memory.into_iter().zip(&others).map(|(memory, (end, _))| rig.submit(recv(end, memory))).collect();
        let multis: Vec<_> = others.iter().map(|(_, end)| rig.submit(recv_multi(end))).collect();
        let (end, duplicate, mut peer) = trap();
        let guilty = rig.submit(Op::RecvMulti(ops::RecvMulti { fd: end }));
        rig.assert_pending(guilty);
        close(end);
        match rig.engine {
            Engine::Poll | Engine::Select => assert_eq!(rig.result(guilty), -libc::EBADF),
            _ => {
                rig.assert_pending(guilty);
                rig.cancel(guilty);
                assert_eq!(rig.result(guilty), CANCELED);
            }
        }
        peer.write_all(b"x").unwrap();
        assert_quiet(&mut rig);
        assert!(rebuilds(&rig) <= 1);
        for ((end, other), (single, multi)) in others.iter().zip(singles.iter().zip(&multis)) {
            let (mut end, mut other) = (end, other);
            end.write_all(b"to the multi").unwrap();
            assert_eq!(rig.bytes(*multi, 12), b"to the multi");
            other.write_all(b"single").unwrap();
            assert_eq!(rig.result(*single), 6);
        }
        // Wake-ups still work.
        rig.driver.waker().wake();
        rig.turn(None);
        for multi in multis {
            rig.cancel(multi);
            assert_eq!(rig.result(multi), CANCELED);
        }
        drop(duplicate);
    }

    fn two_waiters_lose_their_numbers_in_one_rebuild(rig) {
        let (cancelled, _duplicate, mut peer) = trap();
        let (lost, _another, _its_peer) = trap();
        let tokens = [cancelled, lost].map(|fd| rig.submit(watch(fd, POLLIN)));
        rig.assert_pending(tokens[1]);
        close(cancelled);
        close(lost);
        rig.cancel(tokens[0]);
        assert_eq!(rig.result(tokens[0]), CANCELED);
        peer.write_all(b"x").unwrap();
        if rig.is_uring() {
            rig.cancel(tokens[1]);
            assert_eq!(rig.result(tokens[1]), CANCELED);
        } else {
            // The number is no longer open, so it can't be watched.
            assert_eq!(rig.result(tokens[1]), -libc::EBADF);
        }
        assert_quiet(&mut rig);
        assert_eq!(rebuilds(&rig), u64::from(rig.engine == Engine::Epoll));
    }

    fn a_connection_that_is_read_again_and_again_costs_a_wait_and_a_receive(rig) {
        let (mut peer, end) = pair();
        let token = rig.submit(recv_multi(&end));
        rig.assert_pending(token);
        let before = rig.driver.stats().syscalls;
        for _ in 0..100 {
            peer.write_all(b"x").unwrap();
            assert_eq!(rig.bytes(token, 1), b"x");
        }
        let calls = rig.driver.stats().syscalls - before;
        assert!(calls <= 210, "{}: {calls} for 100 messages", rig.engine.name());
    }
}
