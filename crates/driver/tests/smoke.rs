#![allow(clippy::unwrap_used)]
use proact_driver::*;
use std::time::Duration;
#[test]
fn echo() {
    for engine in Engine::ALL {
        let mut d = open(engine, &Config::default()).unwrap();
        eprintln!("{:?} {:?}", engine, d.stats().fallbacks);
        let (mut a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        use std::os::fd::AsRawFd;
        b.set_nonblocking(true).unwrap();
        let s = unsafe { d.submit(7, Op::RecvMulti { fd: b.as_raw_fd() }) };
        assert_eq!(s, Submitted::Pending);
        let mut batch = vec![];
        d.wait(Some(Duration::from_millis(20)), &mut batch).unwrap();
        assert!(batch.is_empty());
        use std::io::Write;
        a.write_all(b"hello").unwrap();
        d.wait(Some(Duration::from_millis(500)), &mut batch).unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(d.data(&batch[0]), b"hello");
        let c = batch[0];
        d.release(&c);
        batch.clear();
        d.cancel(7, OpKind::RecvMulti);
        d.wait(Some(Duration::from_millis(500)), &mut batch).unwrap();
        assert_eq!(batch[0].result, -libc::ECANCELED);
        assert_eq!(d.stats().in_flight, 0);
    }
}
