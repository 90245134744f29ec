//! The list of libc functions that the probe accounts for, the role of each for a program that waits for data, and
//! the addresses of the functions in libc.

use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The role of a call for a program that waits for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The time between two calls.
    Between,
    /// What the probe itself takes around the calls.
    Probe,
    /// The call moves data: its CPU time goes into the copy and the protocol.
    Moves,
    /// The call waits until one of several things has happened, or checks whether one has.
    Waits,
    /// Any other call. It moves no data.
    Asks,
    /// io_uring_enter(2): submits operations, runs their work in the process, waits for completions.
    Ring,
}

impl Role {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Between => "between",
            Role::Probe => "probe",
            Role::Moves => "moves",
            Role::Waits => "waits",
            Role::Asks => "asks",
            Role::Ring => "ring",
        }
    }
}

/// Passes the list of accounted calls to another macro: name, symbol, role, the fd that the call is about, arguments,
/// result.
macro_rules! for_each_call {
    ($then:ident) => {
        $then! {
            Recv "recv" Moves [fd] (fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> isize;
            RecvFrom "recvfrom" Moves [fd]
                (fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, size: *mut socklen_t) -> isize;
            RecvMsg "recvmsg" Moves [fd] (fd: c_int, msg: *mut msghdr, flags: c_int) -> isize;
            RecvMmsg "recvmmsg" Moves [fd]
                (fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int;
            Read "read" Moves [fd] (fd: c_int, buf: *mut c_void, len: size_t) -> isize;
            Readv "readv" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int) -> isize;
            Pread "pread" Moves [fd] (fd: c_int, buf: *mut c_void, len: size_t, offset: off_t) -> isize;
            Pread64 "pread64" Moves [fd] (fd: c_int, buf: *mut c_void, len: size_t, offset: off_t) -> isize;
            Preadv "preadv" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> isize;
            Preadv64 "preadv64" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> isize;
            Preadv2 "preadv2" Moves [fd]
                (fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int) -> isize;
            Preadv64v2 "preadv64v2" Moves [fd]
                (fd: c_int, iov: *const iovec, count: c_int, offset: off_t, flags: c_int) -> isize;
            Send "send" Moves [fd] (fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> isize;
            SendTo "sendto" Moves [fd]
                (fd: c_int, buf: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, size: socklen_t) -> isize;
            SendMsg "sendmsg" Moves [fd] (fd: c_int, msg: *const msghdr, flags: c_int) -> isize;
            SendMmsg "sendmmsg" Moves [fd] (fd: c_int, msgs: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
            Write "write" Moves [fd] (fd: c_int, buf: *const c_void, len: size_t) -> isize;
            Writev "writev" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int) -> isize;
            Pwrite "pwrite" Moves [fd] (fd: c_int, buf: *const c_void, len: size_t, offset: off_t) -> isize;
            Pwrite64 "pwrite64" Moves [fd] (fd: c_int, buf: *const c_void, len: size_t, offset: off_t) -> isize;
            Pwritev "pwritev" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> isize;
            Pwritev64 "pwritev64" Moves [fd] (fd: c_int, iov: *const iovec, count: c_int, offset: off_t) -> isize;
            SendFile "sendfile" Moves [to] (to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> isize;
            SendFile64 "sendfile64" Moves [to] (to: c_int, from: c_int, offset: *mut off_t, len: size_t) -> isize;
            // The checked forms of glibc (`_FORTIFY_SOURCE`), which the interpreters of Linux distributions call.
            RecvChk "__recv_chk" Moves [fd]
                (fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> isize;
            RecvFromChk "__recvfrom_chk" Moves [fd]
                (fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, from: *mut sockaddr,
                 size: *mut socklen_t) -> isize;
            ReadChk "__read_chk" Moves [fd] (fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> isize;
            PreadChk "__pread_chk" Moves [fd]
                (fd: c_int, buf: *mut c_void, len: size_t, offset: off_t, room: size_t) -> isize;
            Pread64Chk "__pread64_chk" Moves [fd]
                (fd: c_int, buf: *mut c_void, len: size_t, offset: off_t, room: size_t) -> isize;
            PollChk "__poll_chk" Waits [-1] (fds: *mut pollfd, count: libc::nfds_t, timeout: c_int, room: size_t) -> c_int;
            Select "select" Waits [-1]
                (count: c_int, read: *mut fd_set, write: *mut fd_set, error: *mut fd_set, timeout: *mut timeval) -> c_int;
            Pselect "pselect" Waits [-1]
                (count: c_int, read: *mut fd_set, write: *mut fd_set, error: *mut fd_set, timeout: *const timespec,
                 mask: *const sigset_t) -> c_int;
            Poll "poll" Waits [-1] (fds: *mut pollfd, count: libc::nfds_t, timeout: c_int) -> c_int;
            Ppoll "ppoll" Waits [-1]
                (fds: *mut pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int;
            EpollWait "epoll_wait" Waits [fd] (fd: c_int, events: *mut epoll_event, room: c_int, timeout: c_int) -> c_int;
            EpollPwait "epoll_pwait" Waits [fd]
                (fd: c_int, events: *mut epoll_event, room: c_int, timeout: c_int, mask: *const sigset_t) -> c_int;
            EpollPwait2 "epoll_pwait2" Waits [fd]
                (fd: c_int, events: *mut epoll_event, room: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int;
            EpollCtl "epoll_ctl" Asks [of] (fd: c_int, op: c_int, of: c_int, event: *mut epoll_event) -> c_int;
            SigWait "sigwait" Waits [-1] (set: *const sigset_t, signal: *mut c_int) -> c_int;
            SigWaitInfo "sigwaitinfo" Waits [-1] (set: *const sigset_t, info: *mut libc::siginfo_t) -> c_int;
            SigTimedWait "sigtimedwait" Waits [-1]
                (set: *const sigset_t, info: *mut libc::siginfo_t, timeout: *const timespec) -> c_int;
            AioRead "aio_read" Asks [-1] (block: *mut aiocb) -> c_int;
            AioRead64 "aio_read64" Asks [-1] (block: *mut aiocb) -> c_int;
            AioWrite "aio_write" Asks [-1] (block: *mut aiocb) -> c_int;
            AioWrite64 "aio_write64" Asks [-1] (block: *mut aiocb) -> c_int;
            AioFsync "aio_fsync" Asks [-1] (op: c_int, block: *mut aiocb) -> c_int;
            AioError "aio_error" Asks [-1] (block: *const aiocb) -> c_int;
            AioReturn "aio_return" Asks [-1] (block: *mut aiocb) -> isize;
            AioSuspend "aio_suspend" Waits [-1] (list: *const *const aiocb, count: c_int, timeout: *const timespec) -> c_int;
            Accept "accept" Asks [fd] (fd: c_int, address: *mut sockaddr, size: *mut socklen_t) -> c_int;
            Accept4 "accept4" Asks [fd] (fd: c_int, address: *mut sockaddr, size: *mut socklen_t, flags: c_int) -> c_int;
            Fsync "fsync" Asks [fd] (fd: c_int) -> c_int;
            Fdatasync "fdatasync" Asks [fd] (fd: c_int) -> c_int;
            Close "close" Asks [fd] (fd: c_int) -> c_int;
            SetSockOpt "setsockopt" Asks [fd]
                (fd: c_int, level: c_int, name: c_int, value: *const c_void, size: socklen_t) -> c_int;
            GetSockOpt "getsockopt" Asks [fd]
                (fd: c_int, level: c_int, name: c_int, value: *mut c_void, size: *mut socklen_t) -> c_int;
            // The last argument of these functions is variadic, which on Linux is passed like any other. If the
            // caller gave none, the wrapper passes on whatever the register holds, and the function ignores it.
            Fcntl "fcntl" Asks [fd] (fd: c_int, op: c_int, argument: *mut c_void) -> c_int;
            Fcntl64 "fcntl64" Asks [fd] (fd: c_int, op: c_int, argument: *mut c_void) -> c_int;
            Ioctl "ioctl" Asks [fd] (fd: c_int, op: libc::c_ulong, argument: *mut c_void) -> c_int;
            GetPid "getpid" Asks [-1] () -> c_int;
        }
    };
}
pub(super) use for_each_call;

macro_rules! kinds {
    ($($call:ident $symbol:literal $role:ident [$fd:expr] ($($arg:ident: $type:ty),*) -> $result:ty;)+) => {
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub(super) enum Call { Between, Probe, $($call,)+ RingEnter }

        impl Call {
            pub const ALL: &'static [Call] = &[Call::Between, Call::Probe, $(Call::$call,)+ Call::RingEnter];

            pub fn name(self) -> &'static str {
                match self {
                    Call::Between => "between",
                    Call::Probe => "probe",
                    $(Call::$call => $symbol,)+
                    Call::RingEnter => "io_uring_enter",
                }
            }

            pub fn role(self) -> Role {
                match self {
                    Call::Between => Role::Between,
                    Call::Probe => Role::Probe,
                    $(Call::$call => Role::$role,)+
                    Call::RingEnter => Role::Ring,
                }
            }
        }

        pub(super) fn find_originals() {
            // In libc itself: an executable that is no PIE and takes the address of a function has an address of its own for
            // it, which leads back through the entries that the probe replaces.
            // SAFETY: the string ends in a NUL. libc is loaded already, and stays.
            let libc = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
            let place = if libc.is_null() { libc::RTLD_DEFAULT } else { libc };
            let find = |call: Call, name: &CStr| {
                // SAFETY: the string ends in a NUL.
                let address = unsafe { libc::dlsym(place, name.as_ptr()) };
                ORIGINALS[call as usize].store(address as usize, Relaxed);
            };
            $(if let Ok(name) = CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                find(Call::$call, name);
            })+
            find(Call::RingEnter, c"syscall");
        }
    };
}

for_each_call!(kinds);

pub(super) const KINDS: usize = Call::RingEnter as usize + 1;

/// The address of libc's own function; 0 if libc has none of this name.
pub(super) fn original(call: Call) -> usize {
    ORIGINALS[call as usize].load(Relaxed)
}

static ORIGINALS: [AtomicUsize; KINDS] = [const { AtomicUsize::new(0) }; KINDS];
