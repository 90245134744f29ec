//! TLS for the load, by the machine's OpenSSL. It is loaded when a load asks for TLS, so nothing else depends on it.
//!
//! A session reads and writes its socket itself, so that a step is still one call that never waits. The server's
//! certificate is not verified, because the bytes are.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{LoadError, TICK_MS};

const LIBRARY: &CStr = c"libssl.so.3";

// openssl/ssl.h
const ERROR_WANT_READ: c_int = 2;
const ERROR_WANT_WRITE: c_int = 3;
const ERROR_SYSCALL: c_int = 5;
const ERROR_ZERO_RETURN: c_int = 6;
const CTRL_MODE: c_int = 33;
/// A partial write is reported, and the rest may be at another address when it is written.
const MODE_PARTIAL_WRITE: c_long = 1 | 2;
/// A connection that ends without a close_notify has ended, as one without TLS.
const OP_IGNORE_UNEXPECTED_EOF: u64 = 1 << 7;

type Pointer = *mut c_void;

/// The functions of OpenSSL that a load needs.
struct Calls {
    new: unsafe extern "C" fn(Pointer) -> Pointer,
    free: unsafe extern "C" fn(Pointer),
    free_context: unsafe extern "C" fn(Pointer),
    set_fd: unsafe extern "C" fn(Pointer, c_int) -> c_int,
    connect: unsafe extern "C" fn(Pointer) -> c_int,
    read: unsafe extern "C" fn(Pointer, Pointer, c_int) -> c_int,
    write: unsafe extern "C" fn(Pointer, *const c_void, c_int) -> c_int,
    error: unsafe extern "C" fn(Pointer, c_int) -> c_int,
    clear: unsafe extern "C" fn(),
}

/// OpenSSL with a context for clients.
pub(crate) struct Library {
    calls: Calls,
    context: Pointer,
}

/// Looks up a function. `F` must be its type.
unsafe fn function<F: Copy>(library: Pointer, name: &CStr) -> io::Result<F> {
    // SAFETY: `library` is a handle of dlopen and `name` a C string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return Err(io::Error::other(format!("{LIBRARY:?} has no {name:?}")));
    }
    debug_assert_eq!(size_of::<F>(), size_of::<Pointer>());
    // SAFETY: the caller says that F is the function's type, and a function pointer has the size of an address.
    Ok(unsafe { std::mem::transmute_copy::<Pointer, F>(&address) })
}

impl Library {
    /// Loads it, and makes the context.
    pub(crate) fn load() -> io::Result<Rc<Self>> {
        // SAFETY: a C string; what the library does when it is loaded is safe in every thread.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(io::Error::other(format!("{LIBRARY:?} is not installed")));
        }
        // SAFETY: the types are those of openssl/ssl.h and openssl/err.h.
        unsafe {
            let method: unsafe extern "C" fn() -> Pointer = function(library, c"TLS_client_method")?;
            let context: unsafe extern "C" fn(Pointer) -> Pointer = function(library, c"SSL_CTX_new")?;
            let control: unsafe extern "C" fn(Pointer, c_int, c_long, Pointer) -> c_long =
                function(library, c"SSL_CTX_ctrl")?;
            let options: unsafe extern "C" fn(Pointer, u64) -> u64 =
                function(library, c"SSL_CTX_set_options")?;
            let calls = Calls {
                new: function(library, c"SSL_new")?,
                free: function(library, c"SSL_free")?,
                free_context: function(library, c"SSL_CTX_free")?,
                set_fd: function(library, c"SSL_set_fd")?,
                connect: function(library, c"SSL_connect")?,
                read: function(library, c"SSL_read")?,
                write: function(library, c"SSL_write")?,
                error: function(library, c"SSL_get_error")?,
                clear: function(library, c"ERR_clear_error")?,
            };
            let context = context(method());
            if context.is_null() {
                return Err(io::Error::other("OpenSSL makes no context"));
            }
            control(context, CTRL_MODE, MODE_PARTIAL_WRITE, std::ptr::null_mut());
            options(context, OP_IGNORE_UNEXPECTED_EOF);
            Ok(Rc::new(Self { calls, context }))
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and each session has a reference of its own to it.
        unsafe { (self.calls.free_context)(self.context) }
    }
}

/// TLS on one connection.
pub(crate) struct Session {
    library: Rc<Library>,
    ssl: Pointer,
}

impl Session {
    /// Shakes hands on a non-blocking socket, which must live as long as the session.
    pub(crate) fn open(
        library: &Rc<Library>,
        fd: RawFd,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> Result<Self, LoadError> {
        // SAFETY: the context is valid as long as the library.
        let ssl = unsafe { (library.calls.new)(library.context) };
        if ssl.is_null() {
            return Err(LoadError::io("TLS")(io::Error::other("OpenSSL makes no session")));
        }
        let session = Self {
            library: Rc::clone(library),
            ssl,
        };
        // SAFETY: `ssl` is valid; the session only borrows the fd.
        unsafe { (library.calls.set_fd)(ssl, fd) };
        // SAFETY: `ssl` is valid and has a socket.
        while let Err(error) = session.call(|| unsafe { (library.calls.connect)(ssl) }) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(LoadError::io("TLS handshake")(error));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(LoadError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(LoadError::io("TLS handshake")(io::ErrorKind::TimedOut.into()));
            }
            let mut wanted = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one pollfd, which is valid and writable for the call.
            unsafe { libc::poll(&raw mut wanted, 1, TICK_MS) };
        }
        Ok(session)
    }

    /// As `recv(2)`: `Ok(0)` is the end.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (room, into) = (length(buffer), buffer.as_mut_ptr().cast());
        // SAFETY: the pointer and the length describe `buffer`, which is borrowed mutably for the call.
        self.call(|| unsafe { (self.library.calls.read)(self.ssl, into, room) })
    }

    /// As `send(2)`.
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length describe `data`, which is borrowed for the call.
        self.call(|| unsafe { (self.library.calls.write)(self.ssl, data.as_ptr().cast(), length(data)) })
    }

    fn call(&self, make: impl FnOnce() -> c_int) -> io::Result<usize> {
        // SAFETY: it only empties this thread's queue of errors, which the answer below is read from.
        unsafe { (self.library.calls.clear)() };
        let result = make();
        let system = io::Error::last_os_error();
        if result > 0 {
            return Ok(result.unsigned_abs() as usize);
        }
        // SAFETY: `ssl` is valid, and this thread has just made the call.
        match unsafe { (self.library.calls.error)(self.ssl, result) } {
            ERROR_WANT_READ | ERROR_WANT_WRITE => Err(io::ErrorKind::WouldBlock.into()),
            ERROR_ZERO_RETURN => Ok(0),
            ERROR_SYSCALL => Err(system),
            other => Err(io::Error::other(format!("OpenSSL's error {other}"))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is ours, and this is its end. It closes no fd.
        unsafe { (self.library.calls.free)(self.ssl) }
    }
}

fn length(bytes: &[u8]) -> c_int {
    c_int::try_from(bytes.len()).unwrap_or(c_int::MAX)
}
