//! Waits that ask their engine again and again before they sleep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::Spin;

/// Longer than any test waits for what comes.
const LONG: Duration = Duration::from_secs(10);

on_every_engine! {
    fn a_spin_loses_no_wake_up(rig) {
        // As `no_wake_up_is_lost`: the wake-ups meet waits that spin, that sleep, and that are in between.
        const ROUNDS: u64 = 2000;
        let added = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (waker, added, seen) = (rig.driver.waker(), added.clone(), seen.clone());
                std::thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        let mine = added.fetch_add(1, Ordering::Release) + 1;
                        waker.wake();
                        while seen.load(Ordering::Acquire) < mine {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let begun = Instant::now();
        let mut round = 0;
        while seen.load(Ordering::Acquire) < 2 * ROUNDS {
            // A new one each time, so that none backs off.
            round += 1;
            let mut batch = Vec::new();
            Spin::new(Duration::from_micros(round % 20)).wait(&mut *rig.driver, Some(LIMIT), &mut batch).unwrap();
            assert!(batch.is_empty());
            seen.store(added.load(Ordering::Acquire), Ordering::Release);
            assert!(begun.elapsed() < LIMIT, "a wake-up was lost");
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn what_comes_ends_a_spin(rig) {
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        let begun = Instant::now();
        for round in 0..20u8 {
            while rig.driver.look().unwrap() {
                // A wake-up of the engine's own, from before.
                rig.turn(Some(Duration::ZERO));
            }
            a.write_all(&[round]).unwrap();
            while !rig.driver.look().unwrap() {
                assert!(begun.elapsed() < LIMIT);
            }
            assert!(rig.driver.look().unwrap(), "it stays");
            rig.turn(Some(LONG));
            let got = rig.poll(token).expect("what was seen");
            assert_eq!(got.data.as_deref(), Some(&[round][..]));
        }
        assert!(begun.elapsed() < LONG, "no wait has slept");
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
    }

    fn a_spin_submits_what_is_queued(rig) {
        let (mut a, b) = pair();
        a.write_all(b"x").unwrap();
        let token = rig.submit(recv_multi(&b));
        let mut spin = Spin::new(Spin::LONGEST);
        while rig.poll(token).is_none() {
            let mut batch = Vec::new();
            spin.wait(&mut *rig.driver, Some(Duration::from_millis(1)), &mut batch).unwrap();
            assert_eq!(spin.counts().paid, spin.counts().spins);
            if let Some(completion) = batch.first() {
                assert_eq!((completion.token, rig.driver.data(completion)), (token, &b"x"[..]));
                rig.driver.release(completion);
                break;
            }
        }
        rig.cancel(token);
        assert_eq!(rig.result(token), CANCELED);
    }

    fn a_spin_ends_with_the_timeout(rig) {
        for micros in [0, 1, 300, 700] {
            let wanted = Duration::from_micros(micros);
            let mut batch = Vec::new();
            let begun = Instant::now();
            Spin::new(Spin::LONGEST).wait(&mut *rig.driver, Some(wanted), &mut batch).unwrap();
            assert!(begun.elapsed() >= wanted, "{}", rig.engine.name());
            assert!(batch.is_empty());
        }
    }

    fn a_spin_in_vain_sleeps_for_the_rest(rig) {
        let wanted = Duration::from_millis(3);
        let mut spin = Spin::new(Duration::from_micros(50));
        for _ in 0..3 {
            let mut batch = Vec::new();
            let begun = Instant::now();
            spin.wait(&mut *rig.driver, Some(wanted), &mut batch).unwrap();
            assert!(begun.elapsed() >= wanted, "{}", rig.engine.name());
        }
        assert_eq!(spin.counts().paid, 0);
        assert!(spin.counts().spins >= 1);
    }
}

/// The ring answers from memory. (The other engines make a system call each time.)
#[test]
fn a_ring_spins_without_system_calls() {
    let Some(mut rig) = Rig::open(proact_driver::Engine::IoUring) else {
        return;
    };
    if rig.driver.has_work() == Some(true) {
        rig.turn(Some(Duration::ZERO));
    }
    let before = rig.driver.stats().syscalls;
    let mut looks = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2) {
        looks += u64::from(!rig.driver.look().unwrap());
    }
    assert!(looks > 100);
    assert!(rig.driver.stats().syscalls - before < 10);
}
