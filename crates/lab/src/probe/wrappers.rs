//! The wrapper of each call. It records the call around libc's own function.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};

use libc::{
    aiocb, epoll_event, fd_set, iovec, mmsghdr, msghdr, off_t, pollfd, sigset_t, size_t, sockaddr, socklen_t,
    timespec, timeval,
};

use super::call::{Call, for_each_call, original};
use super::record::record;

macro_rules! wrappers {
    ($($call:ident $symbol:literal $role:ident [$fd:expr] ($($arg:ident: $type:ty),*) -> $result:ty;)+) => {
        #[allow(non_snake_case, reason = "named as the calls are")]
        mod functions {
            use super::*;
            $(pub unsafe extern "C" fn $call($($arg: $type),*) -> $result {
                type Function = unsafe extern "C" fn($($type),*) -> $result;
                // SAFETY: the address is of libc's function of this name, which has this type.
                let call: Function = unsafe { std::mem::transmute(original(Call::$call)) };
                // SAFETY: the caller's arguments, unchanged.
                record(Call::$call, $fd, || unsafe { call($($arg),*) })
            })+
        }

        /// The wrapper that replaces a symbol. `None` if there is none, or if this libc does not have the symbol.
        pub(super) fn wrapper(symbol: &CStr) -> Option<usize> {
            let (call, address) = match symbol.to_bytes() {
                $(name if name == $symbol.as_bytes() => (Call::$call, functions::$call as *const () as usize),)+
                b"syscall" => (Call::RingEnter, syscall as *const () as usize),
                _ => return None,
            };
            (original(call) != 0).then_some(address)
        }
    };
}

for_each_call!(wrappers);

/// Wraps `syscall(2)`, because libc has no function for io_uring_enter. Passes on six arguments for every call: if
/// the caller gave fewer, the others are what the registers hold, and the kernel ignores them.
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;
    // SAFETY: the address is of libc's syscall, which has this type.
    let call: Syscall = unsafe { std::mem::transmute(original(Call::RingEnter)) };
    // SAFETY: the caller's arguments, unchanged.
    let run = || unsafe { call(number, a, b, c, d, e, f) } as isize;
    let known = match number {
        libc::SYS_io_uring_enter => Call::RingEnter,
        // The driver makes this one by its number, too.
        libc::SYS_preadv2 => Call::Preadv64v2,
        _ => return run() as c_long,
    };
    record(known, a as c_int, run) as c_long
}

/// The wrapper of a symbol, if `address` is libc's own function of that name. For `got::dlsym`.
pub(super) fn is_original(symbol: *const c_char, address: usize) -> Option<usize> {
    // SAFETY: the caller of dlsym passes a string that ends in a NUL.
    let symbol = unsafe { CStr::from_ptr(symbol) };
    let known = Call::ALL
        .iter()
        .find(|call| call.name().as_bytes() == symbol.to_bytes())?;
    (original(*known) == address).then(|| wrapper(symbol)).flatten()
}
