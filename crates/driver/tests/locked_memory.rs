//! Users with little locked memory: how many rings fit, and what happens to a ring that may not grow. Each body runs
//! in a forked child under its own user id, because the kernel counts by user.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::*;
use proact_driver::{Config, Driver, Engine, explain, open};

/// Lets only one test fork at a time, so that no child inherits another test's files.
static ALONE: Mutex<()> = Mutex::new(());

fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: a local structure; the limit only applies to this child.
    let result = unsafe { libc::setrlimit(resource, &raw const limit) };
    assert_eq!(result, 0);
}

/// Runs `body` as a user without other processes, with `bytes` of locked memory.
fn as_somebody(user: u32, bytes: u64, body: impl FnOnce()) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the call has no arguments and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        let _ = writeln!(std::io::stderr(), "NOT TESTED: only root can change its user id");
        return;
    }
    let code = forked(|| {
        let run = || {
            limit(libc::RLIMIT_NOFILE, 4000);
            limit(libc::RLIMIT_MEMLOCK, bytes);
            let user = user + std::process::id() % 10_000 * 10;
            // SAFETY: only the child's ids change, and root's capabilities go with them.
            let result = unsafe { libc::setresuid(user, user, user) };
            assert_eq!(result, 0);
            body();
        };
        i32::from(catch_unwind(AssertUnwindSafe(run)).is_err())
    });
    assert_eq!(code, 0);
}

fn has_a_ring() -> bool {
    match open(Engine::IoUring, &Config::default()) {
        Ok(_) => true,
        Err(error) => {
            report_missing(Engine::IoUring, &error);
            false
        }
    }
}

#[test]
fn two_hundred_rings_fit_in_8_mib() {
    if !has_a_ring() {
        return;
    }
    let limit = 8 << 20;
    as_somebody(100_000, limit, || {
        let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
        let error = loop {
            match open(Engine::IoUring, &Config::default()) {
                Ok(_) if drivers.len() == 600 => return,
                Ok(mut driver) => {
                    driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
                    drivers.push(driver);
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert!(drivers.len() >= 200, "only {} fit", drivers.len());
        // The driver computes the same number as the kernel counts.
        let computed = limit as usize / Config::default().locked_memory(Some(limit));
        assert!(
            drivers.len().abs_diff(computed) <= 1,
            "{} fit, not {computed}",
            drivers.len()
        );
        let text = explain(Engine::IoUring, &error);
        for word in ["ulimit -l", "LimitMEMLOCK", "32 KiB"] {
            assert!(text.contains(word), "{text}");
        }
    });
}

#[test]
fn a_ring_that_may_not_grow_goes_on() {
    if !has_a_ring() {
        return;
    }
    as_somebody(200_001, 8 << 20, || {
        let mut rig = Rig::open(Engine::IoUring).unwrap();
        let mut pairs: Vec<_> = (0..700).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        rig.turn(Some(Duration::ZERO));
        limit(libc::RLIMIT_MEMLOCK, 0);
        for round in 0..3u8 {
            for (index, (a, _)) in pairs.iter_mut().enumerate() {
                a.write_all(&[index as u8, round]).unwrap();
            }
            rig.holds = true;
            for _ in 0..40 {
                rig.turn(Some(Duration::ZERO));
            }
            rig.holds = false;
            rig.release_held();
            for (index, token) in tokens.iter().enumerate() {
                assert_eq!(rig.bytes(*token, 2), [index as u8, round]);
            }
        }
        let stats = rig.driver.stats();
        assert!(
            stats.buffer_exhaustions > 0,
            "the buffers were enough, this proves nothing"
        );
        let told = stats.fallbacks.join("\n");
        assert!(
            stats.buffers > 256 || told.contains("ENOMEM"),
            "{told:?}, {} buffers",
            stats.buffers
        );
    });
}

#[test]
fn rings_that_come_and_go_in_a_room_for_one() {
    if !has_a_ring() {
        return;
    }
    as_somebody(300_002, Config::default().locked_memory(Some(0)) as u64, || {
        for round in 0..50 {
            let opened = open(Engine::IoUring, &Config::default());
            let mut driver = opened.unwrap_or_else(|error| panic!("{round}: {error}"));
            driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        }
    });
}
