//! The probe, installed in this test's own process: what it says of calls whose truth is known.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use proact_lab::probe::{self, CallTimes, Reader, Snapshot};

fn call(snapshot: &Snapshot, name: &str) -> CallTimes {
    let found = snapshot.calls.iter().find(|(each, _, _)| *each == name);
    found.map(|(_, _, times)| *times).unwrap_or_default()
}

#[test]
fn what_waits_and_what_copies() {
    let reader = Reader::new().expect("a table");
    // SAFETY: open as long as the reader.
    let fd = unsafe { BorrowedFd::borrow_raw(reader.fd()) };
    probe::install(fd.try_clone_to_owned().expect("a copy")).expect("installed");
    assert!(probe::install(fd.try_clone_to_owned().expect("a copy")).is_err());
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

    // All of a thread's time is in some row.
    let before = reader.snapshot();
    for _ in 0..1000 {
        far.write_all(&[7; 100]).expect("written");
        near.read_exact(&mut byte).expect("read");
    }
    let after = reader.snapshot();
    let total = |snapshot: &Snapshot| snapshot.calls.iter().map(|(_, _, times)| times.wall).sum::<u64>();
    let threads = after.threads.len() as u64;
    let (sum, wall) = (total(&after) - total(&before), (after.at - before.at) * threads);
    assert!(
        sum.abs_diff(wall) * 50 <= wall,
        "{sum} of {wall} ns in {threads} threads"
    );
    assert!(
        after.overhead > 0 && after.overhead < 100_000,
        "{} ns",
        after.overhead
    );
}
