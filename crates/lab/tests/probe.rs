//! The probe, installed in this test's own process: what it says of calls whose truth is known.

#![allow(clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

#[path = "common/trials.rs"]
mod trials;

use proact_lab::probe::{self, CallTimes, Reader, Role, Snapshot};
use trials::once_of_five;

/// This thread's totals of one kind of call.
fn call(snapshot: &Snapshot, name: &str) -> CallTimes {
    // SAFETY: gettid has no arguments.
    let me = unsafe { libc::gettid() } as u64;
    let mine = snapshot.threads.iter().find(|each| each.thread == me);
    let found = mine.and_then(|mine| mine.calls().find(|(each, _, _)| *each == name));
    found.map(|(_, _, times)| times).unwrap_or_default()
}

/// The growth of what a thread's time was spent on: between calls on a CPU or waiting for one, and all of it.
fn spent(before: &Snapshot, after: &Snapshot) -> (u64, u64) {
    // SAFETY: gettid has no arguments.
    let me = unsafe { libc::gettid() } as u64;
    let all = |snapshot: &Snapshot| {
        let mine = snapshot.threads.iter().find(|each| each.thread == me);
        mine.map_or(0, |mine| {
            mine.calls().map(|(_, _, times)| times.wall).sum::<u64>()
        })
    };
    let wanted = |snapshot| {
        let between = call(snapshot, "between");
        between.cpu + between.run_queue
    };
    (wanted(after) - wanted(before), all(after) - all(before))
}

#[test]
fn what_waits_and_what_copies() {
    let reader = Reader::new().expect("a table");
    // SAFETY: open as long as the reader.
    let fd = unsafe { BorrowedFd::borrow_raw(reader.fd()) };
    probe::install(fd.try_clone_to_owned().expect("a copy")).expect("installed");
    assert!(probe::install(fd.try_clone_to_owned().expect("a copy")).is_err());
    once_of_five(|| truth(&reader));
}

fn truth(reader: &Reader) {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    let mut byte = [0; 100];

    // Data 50 ms away: the receive waits for 50 ms and burns nothing.
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        far.write_all(b"late").expect("written");
        far
    });
    reader.trace(true);
    let before = reader.snapshot();
    assert_eq!(near.read(&mut byte).expect("read"), 4);
    let after = reader.snapshot();
    let mut far = late.join().expect("joined");
    let events = reader.events();
    let event = events
        .iter()
        .find(|event| event.result == 4 && event.end - event.start > 40_000_000)
        .expect("the receive is in the trace");
    assert_eq!(event.fd, i64::from(near.as_raw_fd()));
    assert!(event.end - event.start < 100_000_000, "{event:?}");
    assert!(event.cpu < 2_000_000, "{event:?}");
    let (old, new) = (call(&before, event.call), call(&after, event.call));
    assert!(new.wall - old.wall >= 45_000_000, "{old:?} {new:?}");

    // Data that is there: no waiting.
    far.write_all(b"ready").expect("written");
    reader.trace(true);
    assert_eq!(near.read(&mut byte).expect("read"), 5);
    let events = reader.events();
    let event = events
        .iter()
        .find(|event| event.result == 5)
        .expect("in the trace");
    let waited = (event.end - event.start).saturating_sub(event.cpu + event.run_queue);
    assert!(waited < 1_000_000, "{event:?}");

    // A receive that has nothing to wait for fails, and the trace says how; what sets the socket so is seen, too.
    near.set_nonblocking(true).expect("set");
    assert_eq!(
        near.read(&mut byte).expect_err("empty").kind(),
        ErrorKind::WouldBlock
    );
    near.set_nonblocking(false).expect("set");
    let events = reader.events();
    let event = events.iter().find(|event| event.result == -1);
    let event = event.expect("the receive is in the trace");
    assert_eq!((event.errno, event.role), (i64::from(libc::EAGAIN), Role::Moves));
    assert!(
        events
            .iter()
            .any(|event| event.call == "ioctl" && event.errno == 0)
    );
    assert_eq!(reader.trace(true), 0);

    // All of a thread's time is in some row.
    let before = reader.snapshot();
    for _ in 0..1000 {
        far.write_all(&[7; 100]).expect("written");
        near.read_exact(&mut byte).expect("read");
    }
    let after = reader.snapshot();
    let wall = after.at - before.at;
    let (_, sum) = spent(&before, &after);
    assert!(sum.abs_diff(wall) * 50 <= wall, "{sum} of {wall} ns");

    // A thread that spins across a snapshot was not stalled, although no call has told so.
    let spin = || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {}
    };
    spin();
    let before = reader.snapshot();
    spin();
    let after = reader.snapshot();
    let (user, sum) = spent(&before, &after);
    let wall = after.at - before.at;
    assert!(sum.abs_diff(wall) * 50 <= wall, "{sum} of {wall} ns");
    assert!(user * 10 >= wall * 6 && user <= wall, "{user} of {wall} ns");

    // A thread that has ended stays as it was.
    let ended = thread::spawn(move || {
        far.write_all(b"last").expect("written");
        // SAFETY: gettid has no arguments.
        unsafe { libc::gettid() as u64 }
    });
    let ended = ended.join().expect("joined");
    let total = |snapshot: &Snapshot| {
        let found = snapshot.threads.iter().rev().find(|each| each.thread == ended);
        found.map(|found| found.calls().map(|(_, _, times)| times.wall).sum::<u64>())
    };
    let before = total(&reader.snapshot()).expect("it made a call");
    thread::sleep(Duration::from_millis(20));
    assert_eq!(total(&reader.snapshot()), Some(before));

    // A trace that is full counts what it has no room for.
    reader.trace(true);
    for _ in 0..262_144 + 10 {
        std::hint::black_box(std::process::id());
    }
    assert!((10..100).contains(&reader.trace(false)));
    assert_eq!(reader.events().len(), 262_144);

    assert!(
        after.overhead > 0 && after.overhead < 100_000,
        "{} ns",
        after.overhead
    );
}
