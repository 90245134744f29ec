//! What wakes a sleeping engine: other threads, the timeout, signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Op, ops};

/// The shortest of several measurements, because other processes of the machine make some of them longer.
fn shortest(count: usize, mut measure: impl FnMut() -> Duration) -> Duration {
    (0..count).map(|_| measure()).min().unwrap()
}

on_every_engine! {
    fn no_wake_up_is_lost(rig) {
        // Each thread adds one and wakes the engine, then waits until the loop has seen it. A lost wake-up would be a
        // wait for ever.
        const ROUNDS: u64 = 3000;
        let added = Arc::new(AtomicU64::new(0));
        let seen = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (waker, added, seen) = (rig.driver.waker(), added.clone(), seen.clone());
                std::thread::spawn(move || {
                    for round in 0..ROUNDS {
                        let mine = added.fetch_add(1, Ordering::Release) + 1;
                        waker.wake();
                        if round % 3 != 0 {
                            while seen.load(Ordering::Acquire) < mine {
                                std::thread::yield_now();
                            }
                        }
                    }
                })
            })
            .collect();
        let watchdog = Watchdog::start();
        while seen.load(Ordering::Acquire) < 3 * ROUNDS {
            rig.turn(None);
            seen.store(added.load(Ordering::Acquire), Ordering::Release);
            watchdog.feed();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    fn a_wake_up_before_the_wait_counts(rig) {
        let watchdog = Watchdog::start();
        let waker = rig.driver.waker();
        for _ in 0..1000 {
            waker.wake();
            rig.turn(None);
            watchdog.feed();
        }
        waker.wake();
        waker.wake();
        rig.turn(None);
        // The two wake-ups count as one, so none is left.
        let begun = Instant::now();
        rig.turn(Some(Duration::from_millis(5)));
        assert!(begun.elapsed() >= Duration::from_millis(5));
    }

    fn a_waker_outlives_its_engine(rig) {
        let waker = rig.driver.waker();
        drop(rig);
        waker.wake();
        waker.clone().wake();
    }

    fn io_wakes_too(rig) {
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        let watchdog = Watchdog::start();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            a.write_all(b"x").unwrap();
            a
        });
        while rig.poll(token).is_none() {
            rig.turn(None);
            watchdog.feed();
        }
        drop(writer.join().unwrap());
    }

    fn short_waits_are_short(rig) {
        for micros in [300, 700, 1300] {
            let wanted = Duration::from_micros(micros);
            let took = shortest(20, || {
                let begun = Instant::now();
                rig.turn(Some(wanted));
                let took = begun.elapsed();
                assert!(took >= wanted, "{}: woke after {took:?} instead of {wanted:?}", rig.engine.name());
                took
            });
            let limit = wanted + Duration::from_micros(500);
            assert!(took < limit, "{}: {took:?} for {wanted:?}", rig.engine.name());
        }
    }

    fn zero_does_not_sleep(rig) {
        let (_a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        let took = shortest(20, || {
            let begun = Instant::now();
            rig.turn(Some(Duration::ZERO));
            begun.elapsed()
        });
        assert!(took < Duration::from_micros(300), "{}: {took:?}", rig.engine.name());
    }

    fn extreme_timeouts(rig) {
        let waker = rig.driver.waker();
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 40), Duration::from_millis(u64::MAX)] {
            let waker = waker.clone();
            let begun = Instant::now();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                waker.wake();
            });
            rig.turn(Some(timeout));
            assert!(begun.elapsed() >= Duration::from_millis(9), "{}: {timeout:?}", rig.engine.name());
            thread.join().unwrap();
        }
        rig.turn(Some(Duration::from_nanos(1)));
    }

    fn a_signal_ends_a_wait(rig) {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: the handler does nothing. Without SA_RESTART the signal interrupts system calls.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
        }
        let (_a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        // SAFETY: the id is of this thread, which outlives the other thread.
        let target = unsafe { libc::pthread_self() };
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let thread = std::thread::spawn(move || {
            // A signal may come before or after the wait, so repeat it until one has ended the wait.
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                // SAFETY: the target thread lives: it waits for this thread to end.
                unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            }
        });
        let begun = Instant::now();
        rig.turn(Some(Duration::from_secs(5)));
        done.store(true, Ordering::Relaxed);
        assert!(begun.elapsed() < Duration::from_secs(4), "{}", rig.engine.name());
        thread.join().unwrap();
        rig.assert_pending(token);
    }

    fn has_work_tells_or_does_not_know(rig) {
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        rig.turn(Some(Duration::ZERO));
        assert_ne!(rig.driver.has_work(), Some(true), "{}", rig.engine.name());
        a.write_all(b"x").unwrap();
        if rig.driver.has_work() == Some(false) {
            // The kernel tells a ring of new completions at the latest when the thread next enters the kernel.
            let begun = Instant::now();
            while rig.driver.has_work() == Some(false) && begun.elapsed() < Duration::from_secs(1) {
                std::thread::yield_now();
            }
            assert_ne!(rig.driver.has_work(), Some(false), "{}", rig.engine.name());
        }
        assert_eq!(rig.bytes(token, 1), b"x");
        rig.submit(Op::Poll(ops::Poll { fd: std::os::fd::AsRawFd::as_raw_fd(&b), events: POLLOUT }));
        assert_ne!(rig.driver.has_work(), Some(false), "{}", rig.engine.name());
        rig.turn(Some(Duration::from_millis(100)));
    }
}

/// Ends the process if nobody feeds this watchdog for long, so that a wait without an end fails the test.
struct Watchdog(Arc<AtomicU64>, Arc<AtomicBool>);

impl Watchdog {
    fn start() -> Watchdog {
        let (fed, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (food, end) = (fed.clone(), over.clone());
        let name = std::thread::current().name().unwrap_or_default().to_string();
        std::thread::spawn(move || {
            let (mut last, mut hungry) = (u64::MAX, 0);
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                let now = food.load(Ordering::Relaxed);
                hungry = if now == last { hungry + 1 } else { 0 };
                last = now;
                if hungry > 100 {
                    let _ = writeln!(std::io::stderr(), "{name}: a wake-up was lost");
                    std::process::abort();
                }
            }
        });
        Watchdog(fed, over)
    }

    fn feed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}
