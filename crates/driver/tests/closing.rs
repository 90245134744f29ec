//! Closes fds with ops in flight, and uses their numbers again: no byte may reach the wrong op.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::*;
use proact_driver::{Op, Token, ops};

/// Lets only one test open files at a time, because the kernel gives out the lowest free number: so numbers are used
/// again only if no other test takes them.
static ALONE: Mutex<()> = Mutex::new(());

const GENERATIONS: u32 = 100_000;

/// What the model knows about one use of a number: its receive, and the bytes that must reach it.
struct Generation {
    tag: [u8; 4],
    memory: Option<&'static mut [u8]>,
    received: Vec<u8>,
}

fn take_all(rig: &mut Rig, open: &mut HashMap<Token, Generation>, spare: &mut Vec<&'static mut [u8]>) {
    let engine = rig.engine;
    open.retain(|token, generation| {
        while let Some(got) = rig.poll(*token) {
            if let Some(data) = got.data {
                generation.received.extend(data);
            } else if got.result > 0
                && let Some(memory) = &generation.memory
            {
                generation.received.extend(&memory[..got.result as usize]);
            }
            assert!(
                generation.tag.starts_with(&generation.received),
                "{}: generation {:?} received {:?}",
                engine.name(),
                generation.tag,
                generation.received
            );
            if !got.more {
                spare.extend(generation.memory.take());
                return false;
            }
        }
        true
    });
}

on_every_engine! {
    fn a_number_used_again_100_000_times(rig) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut random = Random::new(42);
        let mut open: HashMap<Token, Generation> = HashMap::new();
        let mut spare = Vec::new();
        let mut numbers: HashSet<RawFd> = HashSet::new();
        let mut closes: Vec<Token> = Vec::new();
        for number in 0..GENERATIONS {
            let (mut a, b) = pair();
            let fd = b.into_raw_fd();
            numbers.insert(fd);
            let tag = number.to_le_bytes();
            let multi = random.below(2) == 0;
            let memory = (!multi).then(|| spare.pop().unwrap_or_else(|| buffer(16)));
            let op = match &memory {
                None => Op::RecvMulti(ops::RecvMulti { fd }),
                Some(memory) => Op::Recv(ops::Recv { fd, buf: memory.as_ptr().cast_mut(), len: 16, flags: 0 }),
            };
            let token = rig.submit(op);
            open.insert(token, Generation { tag, memory, received: Vec::new() });
            match random.below(4) {
                // The bytes are received, then the fd is closed with the (next) receive in flight.
                0 => {
                    a.write_all(&tag).unwrap();
                    let begun = std::time::Instant::now();
                    while open.get(&token).is_some_and(|generation| generation.received.is_empty()) {
                        rig.turn(Some(Duration::from_millis(100)));
                        take_all(&mut rig, &mut open, &mut spare);
                        assert!(begun.elapsed() < LIMIT, "{}: no data", rig.engine.name());
                    }
                }
                // The receive is with the kernel, and data comes together with the close.
                1 => {
                    rig.turn(Some(Duration::ZERO));
                    a.write_all(&tag).unwrap();
                }
                // The fd is closed before the kernel has the receive.
                2 => {}
                // The receive is in flight, and data comes only after the close was submitted.
                _ => rig.turn(Some(Duration::ZERO)),
            }
            closes.push(rig.submit(Op::Close(ops::Close { fd })));
            if random.below(2) == 0 {
                let _ = a.write_all(&tag);
            }
            rig.turn(Some(Duration::ZERO));
            take_all(&mut rig, &mut open, &mut spare);
            closes.retain(|close| rig.poll(*close).is_none_or(|got| { assert_eq!(got.result, 0); false }));
        }
        rig.until("the last generations", |rig| {
            take_all(rig, &mut open, &mut spare);
            closes.retain(|close| rig.poll(*close).is_none());
            open.is_empty() && closes.is_empty()
        });
        // The kernel gave out a few numbers, each of them thousands of times.
        assert!(numbers.len() < 20, "{}: {} numbers", rig.engine.name(), numbers.len());
    }

    fn close_ends_what_is_in_flight(rig) {
        let (a, b) = pair();
        fill(b.as_raw_fd());
        let fd = apart(b);
        let memory = buffer(8);
        let tokens = [
            rig.submit(Op::RecvMulti(ops::RecvMulti { fd })),
            rig.submit(Op::Recv(ops::Recv { fd, buf: memory.as_mut_ptr(), len: 8, flags: 0 })),
            rig.submit(Op::Poll(ops::Poll { fd, events: POLLIN })),
            rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN })),
            rig.submit(Op::Poll(ops::Poll { fd, events: POLLOUT })),
            rig.submit(Op::Send(ops::Send { fd, buf: memory.as_ptr(), len: 8, flags: 0 })),
        ];
        tokens.iter().for_each(|token| rig.assert_pending(*token));
        let close = rig.submit(Op::Close(ops::Close { fd }));
        for token in tokens {
            assert_eq!(rig.result(token), CANCELED);
        }
        assert_eq!(rig.result(close), 0);
        assert!(!is_open(fd));
        let mut byte = [0u8; 65536];
        loop {
            match std::io::Read::read(&mut &a, &mut byte).unwrap() {
                0 => break,
                _ => continue,
            }
        }
    }

    fn close_between_two_polls(rig) {
        // After a level-triggered poll has fired, neither the kernel nor a queue has it. It must not poll the number
        // again.
        let (mut a, b) = pair();
        a.write_all(b"x").unwrap();
        let fd = b.into_raw_fd();
        let token = rig.submit(Op::PollMulti(ops::PollMulti { fd, events: POLLIN }));
        assert!(rig.next(token).more);
        let close = rig.submit(Op::Close(ops::Close { fd }));
        assert_eq!(rig.result(token), CANCELED);
        assert_eq!(rig.result(close), 0);
    }

    fn close_of_a_duplicate_disturbs_nobody(rig) {
        let (mut a, b) = pair();
        let twin = b.try_clone().unwrap().into_raw_fd();
        let memory = buffer(8);
        let stays = rig.submit(recv(&b, memory));
        let polls = rig.submit(Op::PollMulti(ops::PollMulti { fd: b.as_raw_fd(), events: POLLIN }));
        let goes = rig.submit(Op::Poll(ops::Poll { fd: twin, events: POLLIN }));
        for token in [stays, polls, goes] {
            rig.assert_pending(token);
        }
        assert_eq!(rig.run(Op::Close(ops::Close { fd: twin })), 0);
        assert_eq!(rig.result(goes), CANCELED);
        rig.assert_pending(stays);
        rig.assert_pending(polls);
        a.write_all(b"data").unwrap();
        assert_eq!(rig.result(stays), 4);
        rig.cancel(polls);
        assert_eq!(rig.result(polls), CANCELED);
    }

    fn what_was_sent_before_a_close_arrives(rig) {
        let (mut a, b) = tcp_pair();
        a.set_nonblocking(false).unwrap();
        let fd = b.into_raw_fd();
        let block = bytes(&[3; 1000]);
        let sends: Vec<_> = (0..20)
            .map(|_| rig.submit(Op::Send(ops::Send { fd, buf: block.as_ptr(), len: 1000, flags: 0 })))
            .collect();
        for token in sends {
            assert_eq!(rig.result(token), 1000);
        }
        assert_eq!(rig.run(Op::Close(ops::Close { fd })), 0);
        let mut received = Vec::new();
        std::io::Read::read_to_end(&mut a, &mut received).unwrap();
        assert_eq!(received, [3; 20_000]);
    }
}
