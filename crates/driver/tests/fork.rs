//! A fork with ops in flight: the child gets an error, and nothing that it does reaches the parent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::*;
use proact_driver::{Completion, Op, Submitted, ops};

/// Lets only one test fork at a time, so that no child inherits another test's files.
static ALONE: Mutex<()> = Mutex::new(());

on_every_engine! {
    fn the_child_is_told_and_the_parent_goes_on(rig) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut a, b) = pair();
        let (mut c, d) = pair();
        let memory = buffer(8);
        let multi = rig.submit(recv_multi(&b));
        let single = rig.submit(recv(&d, memory));
        let poll = rig.submit(Op::PollMulti(ops::PollMulti { fd: d.as_raw_fd(), events: POLLIN }));
        rig.assert_pending(multi);
        rig.assert_pending(single);
        rig.holds = true;
        a.write_all(b"held").unwrap();
        rig.bytes(multi, 4);
        rig.holds = false;
        let held = rig.held[0];
        let fd = b.as_raw_fd();

        let driver = &mut rig.driver;
        let code = forked(|| {
            let mut batch: Vec<Completion> = Vec::new();
            let told = |result: std::io::Result<()>| {
                result.is_err_and(|error| error.raw_os_error() == Some(libc::EOWNERDEAD))
            };
            if !told(driver.wait(Some(Duration::from_millis(1)), &mut batch)) || !told(driver.wait(None, &mut batch)) {
                return 1;
            }
            // None of these calls may touch the parent's ring or epoll set, or memory that the child did not inherit.
            driver.cancel(0);
            // SAFETY: polls and closes point at no memory.
            let submitted = unsafe { driver.submit(99, Op::Poll(ops::Poll { fd, events: POLLIN })) };
            // SAFETY: polls and closes point at no memory.
            let closed = unsafe { driver.submit(100, Op::Close(ops::Close { fd })) };
            if submitted != Submitted::Ready(-libc::EOWNERDEAD) || closed != Submitted::Ready(-libc::EOWNERDEAD) {
                return 2;
            }
            if driver.has_work() == Some(false) {
                return 3;
            }
            if driver.data(&held) != b"held" {
                return 4;
            }
            driver.release(&held);
            driver.waker().wake();
            driver.unbind();
            if driver.flush().is_ok() {
                return 5;
            }
            driver.shutdown(Duration::from_secs(1));
            // SAFETY: the child exits without unwinding, so the driver is not dropped twice.
            let owned = unsafe { std::ptr::read(driver) };
            drop(owned);
            0
        });
        assert_eq!(code, 0, "{}", rig.engine.name());

        rig.release_held();
        rig.assert_pending(multi);
        rig.assert_pending(single);
        a.write_all(b"to the parent").unwrap();
        c.write_all(b"alive").unwrap();
        assert_eq!(rig.bytes(multi, 13), b"to the parent");
        assert_eq!(rig.result(single), 5);
        rig.cancel(poll);
        assert_eq!(rig.result(poll), CANCELED);
        drop(a);
        assert_eq!(rig.result(multi), 0);
    }

    fn the_child_keeps_its_own_memory(rig) {
        // The memory that the child did not inherit left holes in its address space. The child maps memory there, and
        // dropping the engine must not unmap it.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (_a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        let driver = &mut rig.driver;
        let code = forked(|| {
            // SAFETY: fresh anonymous mappings, written within their length; the child exits without unwinding.
            unsafe {
                let mut mappings = Vec::new();
                for pages in [1, 1, 2, 4, 16, 64, 80, 96] {
                    for _ in 0..40 {
                        let len = pages * 4096;
                        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                        let memory = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
                        if memory == libc::MAP_FAILED {
                            return 1;
                        }
                        mappings.push((memory.cast::<u8>(), len));
                    }
                }
                drop(std::ptr::read(driver));
                for (memory, len) in mappings {
                    std::ptr::write_bytes(memory, 1, len);
                }
            }
            0
        });
        assert_eq!(code, 0, "{}", rig.engine.name());
        rig.assert_pending(token);
    }

    fn a_child_may_have_an_engine_of_its_own(rig) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = rig.engine;
        let (mut a, b) = pair();
        let token = rig.submit(recv_multi(&b));
        rig.assert_pending(token);
        let code = forked(move || {
            let Some(mut mine) = Rig::open(engine) else { return 1 };
            let (mut near, far) = pair();
            let token = mine.submit(recv_multi(&far));
            near.write_all(b"child").unwrap();
            let right = mine.bytes(token, 5) == b"child";
            drop(mine);
            i32::from(!right)
        });
        assert_eq!(code, 0, "{}", engine.name());
        a.write_all(b"parent").unwrap();
        assert_eq!(rig.bytes(token, 6), b"parent");
    }

    fn pool_threads_are_not_missed_by_the_child(rig) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let memory = buffer(16);
        assert_eq!(rig.run(read(&file, memory, 0)), 16);
        let driver = &mut rig.driver;
        let code = forked(|| {
            // SAFETY: the child exits without unwinding, so the driver is not dropped twice.
            drop(unsafe { std::ptr::read(driver) });
            0
        });
        assert_eq!(code, 0, "{}", rig.engine.name());
        assert_eq!(rig.run(read(&file, memory, 0)), 16);
    }
}
