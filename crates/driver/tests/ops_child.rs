//! Ops that wait for child processes, and fds that the program closes itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use proact_driver::{Config, Engine, Op, ops};

fn shell(script: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pidfd(child: &Child) -> OwnedFd {
    // SAFETY: the pid is of a child of this process; the result is a fresh fd.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0) as RawFd;
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn wait_id(pidfd: &impl AsRawFd) -> Op {
    Op::WaitId(ops::WaitId {
        pidfd: pidfd.as_raw_fd(),
    })
}

/// The op waits for a child before it ends, and leaves its status for the parent to collect.
fn told_and_left(rig: &mut Rig) {
    let mut child = shell("read line; exit 7");
    let fd = pidfd(&child);
    let waiting = rig.submit(wait_id(&fd));
    rig.assert_pending(waiting);
    drop(child.stdin.take());
    assert_eq!(rig.result(waiting), 0);
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

on_every_engine! {
    fn a_child_ends(rig) {
        told_and_left(&mut rig);
    }

    fn a_child_that_ended_before(rig) {
        let mut child = shell("kill -9 $$");
        let fd = pidfd(&child);
        assert_eq!(rig.run(wait_id(&fd)), 0);
        assert_eq!(rig.run(wait_id(&fd)), 0, "it is still there to be waited for");
        child.wait().unwrap();
        assert_eq!(rig.run(wait_id(&fd)), -libc::ECHILD);
    }

    fn waiting_is_cancelled_at_once(rig) {
        let mut child = shell("read line");
        let fd = pidfd(&child);
        let waiting = rig.submit(wait_id(&fd));
        rig.assert_pending(waiting);
        let begun = Instant::now();
        rig.cancel(waiting);
        assert_eq!(rig.result(waiting), CANCELED);
        assert!(begun.elapsed() < Duration::from_secs(1));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn closing_a_pidfd_that_is_waited_on(rig) {
        let mut child = shell("read line");
        let fd = apart(pidfd(&child));
        let waiting = rig.submit(Op::WaitId(ops::WaitId { pidfd: fd }));
        rig.assert_pending(waiting);
        assert_eq!(rig.run(Op::Close(ops::Close { fd })), 0);
        assert_eq!(rig.result(waiting), CANCELED);
        assert!(!is_open(fd));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn waiting_for_what_is_no_child(rig) {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(rig.run(wait_id(&file)), -libc::EBADF);
    }

    fn a_closed_fd_with_an_open_duplicate_is_forgotten(rig) {
        let (reader, writer) = pipe(0);
        let poll = rig.submit(Op::PollMulti(ops::PollMulti { fd: reader.as_raw_fd(), events: POLLIN }));
        rig.assert_pending(poll);
        rig.cancel(poll);
        assert_eq!(rig.result(poll), CANCELED);
        let _duplicate = reader.try_clone().unwrap();
        rig.driver.forget(reader.as_raw_fd());
        drop(reader);
        std::io::Write::write_all(&mut File::from(writer), b"x").unwrap();
        let before = rig.driver.stats().syscalls;
        let begun = Instant::now();
        rig.turn(Some(Duration::from_millis(20)));
        assert!(begun.elapsed() >= Duration::from_millis(15), "woken for an fd that nobody watches");
        assert!(rig.driver.stats().syscalls - before <= 2);
    }
}

#[test]
fn a_ring_without_waitid_polls_the_pidfd() {
    let config = Config {
        deny: vec!["waitid".into()],
        ..Config::default()
    };
    let Some(mut rig) = Rig::with(Engine::IoUring, &config) else {
        return;
    };
    let stated = &rig.driver.stats().fallbacks;
    assert!(stated.iter().any(|line| line.starts_with("waitid")), "{stated:?}");
    told_and_left(&mut rig);
}

/// Makes `waitid` of this process fail from now on.
fn deny_waitid(errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let failure = libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_waitid as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, failure),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a local program; the process is a child that ends soon.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

#[test]
fn under_a_filter_that_forbids_waitid() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for engine in Engine::ALL {
            for deny in [vec![], vec!["waitid".to_string()]] {
                let config = Config {
                    deny: deny.clone(),
                    ..Config::default()
                };
                let code = forked(|| {
                    let run = || {
                        let Some(mut rig) = Rig::with(engine, &config) else {
                            return;
                        };
                        deny_waitid(errno);
                        told_and_left(&mut rig);
                    };
                    i32::from(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err())
                });
                assert_eq!(code, 0, "{} {deny:?} {errno}", engine.name());
            }
        }
    }
}
