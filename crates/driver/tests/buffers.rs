//! The buffers of multishot receives: there are too few, they are held for long or given back late. Readiness engines
//! receive into other memory, and must behave in the same way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::time::Duration;

use common::*;
use proact_driver::{Config, Engine, Submitted, open};

fn few(deny: &[&str]) -> Config {
    Config {
        buffers: 4,
        max_buffers: 8,
        buffer_size: 64,
        deny: deny.iter().map(|word| (*word).to_string()).collect(),
        ..Config::default()
    }
}

/// Every engine, and a second ring without its buffer ring.
fn rigs() -> Vec<(Rig, String)> {
    let mut rigs: Vec<_> = Engine::ALL
        .into_iter()
        .filter_map(|engine| Some((Rig::with(engine, &few(&[]))?, engine.name().to_string())))
        .collect();
    rigs.extend(
        Rig::with(Engine::IoUring, &few(&["buf_ring"])).map(|rig| (rig, "io_uring, no buf_ring".into())),
    );
    rigs
}

#[test]
fn more_connections_than_buffers() {
    for (mut rig, name) in rigs() {
        let mut pairs: Vec<_> = (0..40).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        let sent: Vec<_> = (0..40).map(|seed| pattern(5000, seed)).collect();
        rig.turn(Some(Duration::ZERO));
        for ((a, _), data) in pairs.iter_mut().zip(&sent) {
            a.write_all(data).unwrap();
        }
        for (token, data) in tokens.iter().zip(&sent) {
            assert_eq!(rig.bytes(*token, data.len()), *data, "{name}");
        }
        if rig.is_uring() {
            assert!(
                rig.driver.stats().buffer_exhaustions > 0,
                "{name}: the buffers were enough, this proves nothing"
            );
        }
        // The receives are still in flight.
        for ((a, _), token) in pairs.iter_mut().zip(&tokens) {
            a.write_all(b"more").unwrap();
            assert_eq!(rig.bytes(*token, 4), b"more", "{name}");
        }
        let readers: Vec<_> = pairs.into_iter().map(|(_, b)| b).collect();
        for token in tokens {
            assert_eq!(rig.result(token), 0, "{name}");
        }
        drop(readers);
    }
}

#[test]
fn a_burst_lends_no_more_buffers_than_it_needs() {
    let config = Config {
        max_buffers: 1024,
        ..few(&[])
    };
    let Some(mut rig) = Rig::with(Engine::IoUring, &config) else {
        return;
    };
    if rig.driver.stats().buffers == 0 {
        return;
    }
    let mut pairs: Vec<_> = (0..40).map(|_| pair()).collect();
    let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
    rig.turn(Some(Duration::ZERO));
    for (a, _) in &mut pairs {
        a.write_all(b"burst").unwrap();
    }
    for token in &tokens {
        assert_eq!(rig.bytes(*token, 5), b"burst");
    }
    let stats = rig.driver.stats();
    assert!(
        stats.buffer_exhaustions > 0,
        "the buffers were enough, this proves nothing"
    );
    assert!(stats.buffers <= 64, "{} buffers for 40 receives", stats.buffers);
    let readers: Vec<_> = pairs.into_iter().map(|(_, b)| b).collect();
    for token in tokens {
        assert_eq!(rig.result(token), 0);
    }
    drop(readers);
}

#[test]
fn held_bytes_stay_while_waits_go_on() {
    for (mut rig, name) in rigs() {
        rig.holds = true;
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        let mut expected = Vec::new();
        for round in 0..6u8 {
            a.write_all(&[round; 60]).unwrap();
            expected.push(vec![round; 60]);
            assert_eq!(rig.bytes(token, 60), [round; 60], "{name}");
            rig.assert_pending(token);
        }
        for (completion, expected) in rig.held.iter().zip(&expected) {
            assert_eq!(rig.driver.data(completion), expected, "{name}");
        }
        rig.release_held();
        rig.holds = false;
        a.write_all(b"after").unwrap();
        assert_eq!(rig.bytes(token, 5), b"after", "{name}");
    }
}

#[test]
fn a_holder_of_everything_stops_only_receiving_and_does_not_spin() {
    for (mut rig, name) in rigs() {
        rig.holds = true;
        let mut pairs: Vec<_> = (0..20).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        for (index, (a, _)) in pairs.iter_mut().enumerate() {
            a.write_all(&[index as u8; 50]).unwrap();
        }
        for _ in 0..10 {
            rig.turn(Some(Duration::from_millis(2)));
        }
        if rig.is_uring() {
            assert_eq!(rig.held.len(), 8, "{name}");
            // While every buffer is held a wait sleeps, and does not spin for a buffer.
            let exhaustions = rig.driver.stats().buffer_exhaustions;
            let begun = std::time::Instant::now();
            rig.turn(Some(Duration::from_millis(30)));
            assert!(
                begun.elapsed() >= Duration::from_millis(29),
                "{name}: {:?}",
                begun.elapsed()
            );
            assert_eq!(rig.driver.stats().buffer_exhaustions, exhaustions, "{name}");
            // Other ops still work.
            let (mut c, d) = pair();
            c.write_all(b"single").unwrap();
            assert_eq!(rig.run(recv(&d, buffer(8))), 6, "{name}");
            // A receive without a buffer can be cancelled.
            let (mut e, f) = pair();
            e.write_all(b"starved").unwrap();
            let starved = rig.submit(recv_multi(&f));
            rig.assert_pending(starved);
            rig.cancel(starved);
            assert_eq!(rig.result(starved), CANCELED, "{name}");
        }
        rig.release_held();
        rig.holds = false;
        for (index, token) in tokens.iter().enumerate() {
            assert_eq!(rig.bytes(*token, 50), [index as u8; 50], "{name}");
        }
    }
}

#[test]
fn a_release_done_twice_is_harmless() {
    for (mut rig, name) in rigs() {
        rig.holds = true;
        let mut pairs: Vec<_> = (0..8).map(|_| pair()).collect();
        let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
        if !rig.is_uring() {
            continue;
        }
        for round in 0..20u8 {
            for (a, _) in &mut pairs {
                a.write_all(&[round; 64]).unwrap();
            }
            for token in &tokens {
                assert_eq!(rig.bytes(*token, 64), [round; 64], "{name}");
                let held = rig.held.clone();
                rig.release_held();
                for completion in held {
                    rig.driver.release(&completion);
                    assert!(rig.driver.data(&completion).is_empty(), "{name}");
                }
            }
        }
    }
}

#[test]
fn odd_configurations_work() {
    for (buffers, max_buffers, buffer_size) in [
        (0, 0, 0),
        (1, 1, 1),
        (3, 5, 100),
        (u16::MAX, u16::MAX, 16),
        (7, 2, 4096),
    ] {
        let config = Config {
            buffers,
            max_buffers,
            buffer_size,
            entries: 0,
            cq_entries: 1,
            ..Config::default()
        };
        let Some(mut rig) = Rig::with(Engine::IoUring, &config) else {
            return;
        };
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        a.write_all(&pattern(500, 1)).unwrap();
        assert_eq!(rig.bytes(token, 500), pattern(500, 1), "{config:?}");
    }
}

/// The buffer ring has to grow again and again while buffers are held and given back late and while the completion
/// queue overflows.
#[test]
fn bursts_that_grow() {
    for small in [false, true] {
        let config = Config {
            entries: if small { 8 } else { 128 },
            cq_entries: if small { 16 } else { 0 },
            buffers: 4,
            max_buffers: 4096,
            buffer_size: 64,
            ..Config::default()
        };
        for engine in Engine::ALL {
            let Some(mut rig) = Rig::with(engine, &config) else {
                continue;
            };
            let name = rig.engine.name();
            let mut pairs: Vec<_> = (0..400).map(|_| pair()).collect();
            let tokens: Vec<_> = pairs.iter().map(|(_, b)| rig.submit(recv_multi(b))).collect();
            rig.turn(Some(Duration::ZERO));
            for round in 0..8u8 {
                // In some rounds more buffers are held than the buffer ring has entries.
                rig.holds = round % 2 == 0;
                let pieces = 1 + u8::from(round > 3) * 3;
                for (index, (a, _)) in pairs.iter_mut().enumerate() {
                    for _ in 0..pieces {
                        a.write_all(&[round ^ index as u8; 64]).unwrap();
                    }
                }
                for (index, token) in tokens.iter().enumerate() {
                    let expected = vec![round ^ index as u8; 64 * usize::from(pieces)];
                    assert_eq!(rig.bytes(*token, expected.len()), expected, "{name}");
                }
                for completion in &rig.held {
                    let held = rig.driver.data(completion);
                    assert!(held.iter().all(|byte| *byte == held[0]), "{name}: overwritten");
                }
                rig.release_held();
            }
            if rig.is_uring() {
                let stats = rig.driver.stats();
                assert!(stats.buffers > 512, "{} buffers", stats.buffers);
                assert!(!small || stats.overflows > 0, "the queue was never full");
                assert!(stats.fallbacks.is_empty(), "{:?}", stats.fallbacks);
            }
        }
    }
}

/// A driver that is dropped with a receive in flight, as after a `shutdown` that reached its limit, must not unmap
/// the buffers: the kernel may still write to them.
#[test]
fn buffers_outlive_a_driver_that_ops_are_left_of() {
    let Ok(mut driver) = open(Engine::IoUring, &Config::default()) else {
        return;
    };
    let (mut a, b) = pair();
    // SAFETY: the op points at no memory.
    assert_eq!(unsafe { driver.submit(1, recv_multi(&b)) }, Submitted::Pending);
    a.write_all(b"bytes").unwrap();
    let mut batch = Vec::new();
    while batch.is_empty() {
        driver.wait(Some(Duration::from_millis(100)), &mut batch).unwrap();
    }
    let data = driver.data(&batch[0]).as_ptr();
    drop(driver);
    let page = data.map_addr(|address| address & !4095);
    let mut resident = 0u8;
    // SAFETY: mincore reads no memory of the page, and writes one byte for it.
    let result = unsafe { libc::mincore(page.cast_mut().cast(), 4096, &raw mut resident) };
    assert_eq!(result, 0, "unmapped");
}
