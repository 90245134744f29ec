//! What every contract test needs: an engine with an inbox, helpers to open files, and a macro that runs each test on
//! all four engines.
//!
//! A `Rig` checks the contract in every test: every token has one terminal completion and no completion after it, a
//! wait is bounded, and no op is in flight at the end.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed unwrap is a failed assertion"
)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proact_driver::{Completion, Config, Driver, Engine, Flags, Op, Submitted, Token, open, ops};

pub const LIMIT: Duration = Duration::from_secs(10);
pub const POLLIN: u32 = libc::POLLIN as u32;
pub const POLLOUT: u32 = libc::POLLOUT as u32;
pub const CANCELED: i32 = -libc::ECANCELED;

/// Makes one test for each engine from one body.
#[macro_export]
macro_rules! on_every_engine {
    ($($(#[$meta:meta])* fn $name:ident($rig:ident) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports, reason = "not every body needs all of it")]
                use super::*;
                #[allow(unused_mut, reason = "not every body submits")]
                fn body(mut $rig: Rig) $body
                #[test]
                fn io_uring() { Rig::open(proact_driver::Engine::IoUring).into_iter().for_each(body) }
                #[test]
                fn epoll() { Rig::open(proact_driver::Engine::Epoll).into_iter().for_each(body) }
                #[test]
                fn poll() { Rig::open(proact_driver::Engine::Poll).into_iter().for_each(body) }
                #[test]
                fn select() { Rig::open(proact_driver::Engine::Select).into_iter().for_each(body) }
            }
        )+
    };
}

/// Reports on the terminal that an engine was not tested. Writes to stderr directly, because the test harness
/// captures what `eprintln!` prints.
pub fn report_missing(engine: Engine, error: &std::io::Error) {
    let _ = writeln!(std::io::stderr(), "NOT TESTED on {}: {error}", engine.name());
}

/// A completion with its own copy of the bytes.
#[derive(Clone, Debug)]
pub struct Got {
    pub result: i32,
    pub more: bool,
    pub full: bool,
    pub data: Option<Vec<u8>>,
}

pub struct Rig {
    pub driver: Box<dyn Driver>,
    pub engine: Engine,
    next_token: Token,
    alive: HashSet<Token>,
    inbox: HashMap<Token, VecDeque<Got>>,
    batch: Vec<Completion>,
    /// If true, completions with data go into `held` and are not released.
    pub holds: bool,
    pub held: Vec<Completion>,
}

impl Rig {
    pub fn open(engine: Engine) -> Option<Rig> {
        Rig::with(engine, &Config::default())
    }

    /// `None`, and a line on the terminal, if this machine lacks the engine.
    pub fn with(engine: Engine, config: &Config) -> Option<Rig> {
        match open(engine, config) {
            Ok(driver) => Some(Rig {
                driver,
                engine,
                next_token: 0,
                alive: HashSet::new(),
                inbox: HashMap::new(),
                batch: Vec::new(),
                holds: false,
                held: Vec::new(),
            }),
            Err(error) => {
                report_missing(engine, &error);
                None
            }
        }
    }

    pub fn is_uring(&self) -> bool {
        self.engine == Engine::IoUring
    }

    /// Submits an op. A result that comes at once goes into the inbox like any other.
    pub fn submit(&mut self, op: Op) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        // SAFETY: the tests' ops point only at leaked memory or at statics.
        match unsafe { self.driver.submit(token, op) } {
            Submitted::Ready(result) => self.inbox.entry(token).or_default().push_back(Got {
                result,
                more: false,
                full: false,
                data: None,
            }),
            Submitted::Pending => {
                self.alive.insert(token);
            }
        }
        token
    }

    /// One wait.
    pub fn turn(&mut self, timeout: Option<Duration>) {
        let mut batch = std::mem::take(&mut self.batch);
        self.driver.wait(timeout, &mut batch).expect("wait");
        for completion in batch.drain(..) {
            let token = completion.token;
            assert!(
                self.alive.contains(&token),
                "{}: {completion:?} after the end, or with an unknown token",
                self.engine.name()
            );
            if completion.is_terminal() {
                self.alive.remove(&token);
            }
            let data = completion.flags.contains(Flags::DATA).then(|| {
                let data = self.driver.data(&completion).to_vec();
                assert_eq!(data.len() as i32, completion.result);
                if self.holds {
                    self.held.push(completion);
                } else {
                    self.driver.release(&completion);
                }
                data
            });
            self.inbox.entry(token).or_default().push_back(Got {
                result: completion.result,
                more: !completion.is_terminal(),
                full: completion.flags.contains(Flags::FULL),
                data,
            });
        }
        self.batch = batch;
    }

    /// The next completion of an op, if one has arrived.
    pub fn poll(&mut self, token: Token) -> Option<Got> {
        self.inbox.get_mut(&token)?.pop_front()
    }

    /// Waits for the next completion of an op.
    pub fn next(&mut self, token: Token) -> Got {
        let begun = Instant::now();
        loop {
            if let Some(got) = self.poll(token) {
                return got;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{}: nothing from op {token}",
                self.engine.name()
            );
            self.turn(Some(Duration::from_millis(100)));
        }
    }

    /// Waits for the terminal result of an op. Drops earlier completions.
    pub fn result(&mut self, token: Token) -> i32 {
        loop {
            let got = self.next(token);
            if !got.more {
                return got.result;
            }
        }
    }

    /// Submits an op and waits for its terminal result.
    pub fn run(&mut self, op: Op) -> i32 {
        let token = self.submit(op);
        self.result(token)
    }

    /// Proves that an op is in flight: several waits have handed it to the kernel and returned without its
    /// completion.
    pub fn assert_pending(&mut self, token: Token) {
        for _ in 0..3 {
            self.turn(Some(Duration::ZERO));
        }
        let arrived = self.inbox.get(&token).and_then(|queue| queue.front());
        assert!(
            arrived.is_none() && self.alive.contains(&token),
            "{}: op {token} is not in flight: {arrived:?}",
            self.engine.name()
        );
    }

    /// Waits until a condition holds.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Rig) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(
                begun.elapsed() < LIMIT,
                "{}: waited in vain for {what}",
                self.engine.name()
            );
            self.turn(Some(Duration::from_millis(10)));
        }
    }

    pub fn cancel(&mut self, token: Token) -> bool {
        self.driver.cancel(token)
    }

    /// Collects the bytes of a multishot receive until there are `count` of them.
    pub fn bytes(&mut self, token: Token, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let got = self.next(token);
            assert!(
                got.more,
                "{}: ended with {} after {} bytes",
                self.engine.name(),
                got.result,
                bytes.len()
            );
            bytes.extend(got.data.expect("data"));
        }
        bytes
    }

    pub fn release_held(&mut self) {
        for completion in std::mem::take(&mut self.held) {
            self.driver.release(&completion);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(
            self.driver.shutdown(LIMIT),
            0,
            "{}: left in flight",
            self.engine.name()
        );
        assert_eq!(self.driver.stats().in_flight, 0);
    }
}

/// Leaked memory, so that the kernel may use it at any time.
pub fn buffer(len: usize) -> &'static mut [u8] {
    vec![0u8; len].leak()
}

pub fn bytes(text: &[u8]) -> &'static mut [u8] {
    text.to_vec().leak()
}

pub fn path(text: &std::path::Path) -> *const libc::c_char {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(text.as_os_str().as_bytes())
        .unwrap()
        .into_raw()
}

pub fn recv(fd: &impl AsRawFd, buffer: &mut [u8]) -> Op {
    Op::Recv(ops::Recv {
        fd: fd.as_raw_fd(),
        buf: buffer.as_mut_ptr(),
        len: buffer.len(),
        flags: 0,
    })
}

pub fn send(fd: &impl AsRawFd, buffer: &[u8]) -> Op {
    Op::Send(ops::Send {
        fd: fd.as_raw_fd(),
        buf: buffer.as_ptr(),
        len: buffer.len(),
        flags: 0,
    })
}

pub fn read(fd: &impl AsRawFd, buffer: &mut [u8], offset: i64) -> Op {
    Op::Read(ops::Read {
        fd: fd.as_raw_fd(),
        buf: buffer.as_mut_ptr(),
        len: buffer.len(),
        offset,
    })
}

pub fn write(fd: &impl AsRawFd, buffer: &[u8], offset: i64) -> Op {
    Op::Write(ops::Write {
        fd: fd.as_raw_fd(),
        buf: buffer.as_ptr(),
        len: buffer.len(),
        offset,
    })
}

pub fn recv_multi(fd: &impl AsRawFd) -> Op {
    Op::RecvMulti(ops::RecvMulti { fd: fd.as_raw_fd() })
}

pub fn vectors(parts: &mut [&'static mut [u8]]) -> &'static mut [libc::iovec] {
    let vectors: Vec<libc::iovec> = parts
        .iter_mut()
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect();
    vectors.leak()
}

pub fn message(vectors: &'static mut [libc::iovec]) -> &'static mut libc::msghdr {
    // SAFETY: a msghdr of zeros is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = vectors.len();
    Box::leak(Box::new(message))
}

/// Connected non-blocking stream sockets.
pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

pub fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// The reading and the writing end of a pipe with these `flags` of pipe2(2).
pub fn pipe(flags: i32) -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: two ints to write into; the fds are fresh.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), flags | libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))
    }
}

/// A non-blocking TCP socket that is not connected.
pub fn socket() -> OwnedFd {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a fresh fd.
    unsafe {
        let fd = libc::socket(libc::AF_INET, kind, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

pub fn address(port: u16) -> (*const libc::sockaddr, libc::socklen_t) {
    // SAFETY: all zeros is a valid sockaddr_in.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from(std::net::Ipv4Addr::LOCALHOST).to_be();
    let address = Box::leak(Box::new(address));
    (
        std::ptr::from_ref(address).cast(),
        size_of::<libc::sockaddr_in>() as libc::socklen_t,
    )
}

pub fn connect(fd: &impl AsRawFd, port: u16) -> Op {
    let (addr, len) = address(port);
    Op::Connect(ops::Connect {
        fd: fd.as_raw_fd(),
        addr,
        len,
    })
}

/// Makes the next close of the socket send a reset.
pub fn reset_on_close(socket: &impl AsRawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's own structure and size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

pub fn set_buffer(socket: &impl AsRawFd, option: i32, size: i32) {
    // SAFETY: an int and its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const size).cast(),
            4,
        )
    };
    assert_eq!(result, 0);
}

/// Waits until a thread of this process is in openat(2), because on a busy machine a pool thread takes a while to get
/// there. Waits no longer than a second, because not every kernel shows the system call.
pub fn wait_for_an_open() {
    let call = format!("{} ", libc::SYS_openat);
    let opens = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.unwrap().path().join("syscall")).is_ok_and(|now| now.starts_with(&call))
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1)
        && !std::fs::read_dir("/proc/self/task").unwrap().any(opens)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes until the socket takes no more bytes. Returns how many it took.
pub fn fill(fd: RawFd) -> usize {
    let mut total = 0;
    // TCP takes more bytes once its peer has acknowledged some and its window has grown. So the socket is full only
    // if it takes none while everything is acknowledged. The kernel sends bytes again that the peer had no room for,
    // first after 200 ms, then after 400 ms.
    let mut quiet = 0;
    loop {
        let settled = !unacknowledged(fd);
        let count = fill_once(fd);
        total += count;
        quiet = if count == 0 { quiet + 1 } else { 0 };
        if quiet >= 3 && settled || quiet >= 1000 {
            return total;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the socket is a TCP socket that waits for an acknowledgement.
fn unacknowledged(fd: RawFd) -> bool {
    // SAFETY: the struct has only integers, so all zeros is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as libc::socklen_t;
    // SAFETY: `len` bytes of writable memory.
    let status = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        )
    };
    status == 0 && info.tcpi_unacked > 0
}

fn fill_once(fd: RawFd) -> usize {
    let block = [7u8; 4096];
    let mut total = 0;
    loop {
        // SAFETY: readable memory of that length; the fd is non-blocking.
        let count = unsafe { libc::send(fd, block.as_ptr().cast(), block.len(), libc::MSG_DONTWAIT) };
        if count <= 0 {
            return total;
        }
        total += count as usize;
    }
}

/// Moves a file to a number that no other test gets. Tests of one process run in parallel, so another test may open a
/// file under a number as soon as this test closes it.
pub fn apart(file: impl Into<OwnedFd>) -> RawFd {
    static NEXT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(600);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    // SAFETY: the fd is a duplicate of an open file.
    let fd = unsafe { libc::fcntl(file.into().as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert!(fd == number && (fd as usize) < libc::FD_SETSIZE);
    fd
}

pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: fcntl only looks up the number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// A directory that is removed when the test ends.
pub struct Directory(pub std::path::PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("proact-driver-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Directory(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes from which a test can tell their position.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled" (2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Runs `child` in a forked child. Returns the exit code.
pub fn forked(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs the closure, which uses what this thread owns, and exits without unwinding.
    unsafe {
        match libc::fork() {
            0 => {
                // Kills a child that hangs. The child sets the alarm because alarms are not inherited (alarm(2)).
                libc::alarm(10);
                let code = child();
                libc::_exit(code);
            }
            pid => {
                assert!(pid > 0);
                let mut status = 0;
                assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
                if libc::WIFEXITED(status) {
                    libc::WEXITSTATUS(status)
                } else {
                    1000 + libc::WTERMSIG(status)
                }
            }
        }
    }
}
