//! Accepts that fail. The op skips errors of one connection, and ends with a completion if there are no fds or no
//! memory. Afterwards the listener still works. Each test body runs in a forked child, because it breaks the process
//! that it runs in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed unwrap is a failed assertion"
)]

mod common;

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::*;
use proact_driver::{Config, Engine, Op, OpKind, Token, ops};

/// Lets only one test fork at a time, so that no child inherits another test's files.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a body on every engine, and on a ring that has to accept by the system call.
fn on_each(body: fn(&mut Rig)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let denied = Config {
        deny: vec!["accept".into()],
        ..Config::default()
    };
    let mut setups: Vec<_> = Engine::ALL.map(|engine| (engine, Config::default())).into();
    setups.push((Engine::IoUring, denied));
    for (engine, config) in setups {
        let code = forked(|| {
            let run = || Rig::with(engine, &config).iter_mut().for_each(body);
            i32::from(catch_unwind(AssertUnwindSafe(run)).is_err())
        });
        assert_eq!(code, 0, "{} {:?}", engine.name(), config.deny);
    }
}

fn accept(listener: &TcpListener) -> Op {
    Op::AcceptMulti(ops::AcceptMulti {
        fd: listener.as_raw_fd(),
    })
}

fn client(listener: &TcpListener) -> TcpStream {
    TcpStream::connect(listener.local_addr().unwrap()).unwrap()
}

/// Asserts that the next completion is a connection, and returns it.
fn accepted(rig: &mut Rig, token: Token) -> OwnedFd {
    let got = rig.next(token);
    assert!(got.more && got.result >= 0, "{got:?}");
    // SAFETY: a fresh fd.
    unsafe { OwnedFd::from_raw_fd(got.result) }
}

/// Limits fds to numbers below `limit`.
fn limit_files(limit: RawFd) {
    let limit = libc::rlimit {
        rlim_cur: limit as u64,
        rlim_max: 4096,
    };
    // SAFETY: a local structure; the limit only applies to this child.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0);
}

/// Opens files until every number below the limit is taken.
fn take_all_files() -> Vec<OwnedFd> {
    // SAFETY: fresh fds.
    let dup = || unsafe {
        let fd = libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    };
    std::iter::from_fn(dup).collect()
}

#[test]
fn no_file_is_left() {
    on_each(|rig| {
        let listener = listener();
        let mut clients = vec![client(&listener)];
        // The first wait opens the fds that a ring needs.
        rig.turn(Some(Duration::ZERO));
        limit_files(200);
        let mut taken = take_all_files();
        // The accept fails at its submission, while a connection is there. This happens several times.
        for _ in 0..3 {
            let token = rig.submit(accept(&listener));
            assert!(rig.poll(token).is_none(), "not at submission");
            assert_eq!(rig.result(token), -libc::EMFILE);
        }
        // Once there are free fds again, the accept takes every connection.
        taken.truncate(taken.len() - 5);
        let token = rig.submit(accept(&listener));
        let mut served = vec![accepted(rig, token)];
        // Now the accept fails in flight.
        clients.extend((0..3).map(|_| client(&listener)));
        served.extend((0..1).map(|_| accepted(rig, token)));
        let before = rig.driver.stats().syscalls;
        assert_eq!(rig.result(token), -libc::EMFILE);
        for _ in 0..5 {
            rig.turn(Some(Duration::ZERO));
        }
        assert!(rig.driver.stats().syscalls - before < 30);
        drop(taken);
        let token = rig.submit(accept(&listener));
        served.extend((0..2).map(|_| accepted(rig, token)));
        assert_eq!(served.len(), clients.len());
        rig.assert_pending(token);
    });
}

/// Makes `accept4` of this thread fail with `errors` in their order, and with the last of them for ever if `forever`.
fn fail_accepts(errors: Vec<i32>, forever: bool) {
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    let statement = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let call = libc::SYS_accept4 as u32;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a local program. It filters only this thread, in a child that ends soon.
    let supervisor = unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    } as RawFd;
    assert!(supervisor >= 0, "{}", std::io::Error::last_os_error());
    std::thread::spawn(move || {
        let mut errors = errors.into_iter().peekable();
        loop {
            // SAFETY: all zeros is valid for both structures, and each request has the size that its number encodes.
            unsafe {
                let mut asked: libc::seccomp_notif = std::mem::zeroed();
                if libc::ioctl(supervisor, RECEIVE, &raw mut asked) != 0 {
                    continue;
                }
                let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
                answer.id = asked.id;
                let last = *errors.peek().unwrap_or(&0);
                match errors.next() {
                    Some(error) => answer.error = -error,
                    None => answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                }
                if forever && errors.peek().is_none() {
                    errors = vec![last; 1].into_iter().peekable();
                }
                libc::ioctl(supervisor, SEND, &raw mut answer);
            }
        }
    });
}

/// A ring makes no accept4 that could be made to fail. So the ring that is denied the opcode shows what a ring does
/// with an error.
fn accepts_by_itself(rig: &Rig) -> bool {
    rig.driver
        .features()
        .is_some_and(|features| features.native(OpKind::AcceptMulti))
}

const OF_ONE_CONNECTION: [i32; 9] = [
    libc::ECONNABORTED,
    libc::EPROTO,
    libc::EPERM,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
];

#[test]
fn a_connection_s_own_errors_are_passed_over() {
    on_each(|rig| {
        if accepts_by_itself(rig) {
            return;
        }
        let listener = listener();
        let _clients: Vec<_> = (0..3).map(|_| client(&listener)).collect();
        fail_accepts(OF_ONE_CONNECTION.to_vec(), false);
        let token = rig.submit(accept(&listener));
        let _served: Vec<_> = (0..3).map(|_| accepted(rig, token)).collect();
        rig.assert_pending(token);
    });
}

#[test]
fn want_of_resources_ends_it() {
    on_each(|rig| {
        if accepts_by_itself(rig) {
            return;
        }
        let listener = listener();
        let _client = client(&listener);
        let errors = [libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EMFILE];
        fail_accepts(errors.to_vec(), false);
        for error in errors {
            let token = rig.submit(accept(&listener));
            assert!(rig.poll(token).is_none(), "not at submission");
            assert_eq!(rig.result(token), -error);
        }
        let token = rig.submit(accept(&listener));
        let _served = accepted(rig, token);
    });
}

#[test]
fn an_error_without_end_is_told() {
    on_each(|rig| {
        if accepts_by_itself(rig) {
            return;
        }
        let listener = listener();
        let _client = client(&listener);
        fail_accepts(vec![libc::EPERM], true);
        let token = rig.submit(accept(&listener));
        assert_eq!(rig.result(token), -libc::EPERM);
        assert!(rig.driver.stats().syscalls < 300);
    });
}
