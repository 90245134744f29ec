//! What the native side needs from the loop above it: Python functions, which take the loop as their first argument, and
//! classes. They are read from the loop's class once, when the loop is configured, so that no other file names a private
//! attribute of the loop.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use crate::py::make::name;
use crate::reactor::scheduler::Scheduler;

macro_rules! hooks {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        pub struct Hooks {
            $($(#[$doc])* pub $field: Py<PyAny>,)*
            /// Makes a future of the loop, ready to be yielded by a task.
            pub future: Future,
        }

        impl Hooks {
            /// # Errors
            /// `AttributeError` for a class that lacks one.
            pub fn of(class: &Bound<'_, PyAny>, future: Future) -> PyResult<Hooks> {
                Ok(Hooks {
                    $($field: class.getattr(name!($name))?.unbind(),)*
                    future,
                })
            }

            pub fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
                $(visit.call(&self.$field)?;)*
                Ok(())
            }
        }
    };
}

pub type Future = for<'py> fn(&Bound<'py, Scheduler>) -> PyResult<Bound<'py, PyAny>>;

hooks! {
    /// `(callback, args, context, check_thread)`: makes a handle that knows where it was made, for debug mode.
    debug_handle = "_debug_handle",
    /// `(when, callback, args, context)`: makes such a handle of a timer.
    debug_timer = "_debug_timer",
    /// `(handle)`: runs such a handle.
    run_debug = "_run_debug",
    /// `(what, seconds)`: tells how long something has run, in debug mode.
    took = "_took",
    /// `(callback, args, error, handle)`: a callback has raised.
    callback_failed = "_callback_failed",
    /// `(message, error)`: something other than a callback has failed.
    failed = "_failed",
    /// `(loop or None)`, without the loop: what asyncio shows as the running loop.
    set_running_loop = "_set_running_loop",
    /// `(loop)`: nothing that the loop knows of can end its next wait. Called if `_tell_idle` has asked for it.
    idle = "_idle",
    /// The class of sockets that need no check.
    plain_socket = "_plain_socket",
    /// `(socket)`, without the loop: raises for a TLS socket, whose bytes are not those of its fd.
    check_socket = "_check_socket",

    /// `(transport, error, message)`: the connection has failed.
    transport_failed = "_transport_failed",
    /// `(transport, error, message)`: the protocol has raised.
    protocol_failed = "_protocol_failed",
    /// `(error, socket, retries)`: accepting has failed.
    accept_failed = "_accept_failed",
    /// `(error)`: no transport could be made for an accepted connection.
    connection_failed = "_connection_failed",
    /// `(transport)`
    handshake_begins = "_handshake_begins",
    /// `(transport, seconds)`
    handshake_took = "_handshake_took",
    /// asyncio's protocol of streams.
    stream_protocol = "_stream_protocol",
    /// `(protocol)`, without the loop: the reader of such a protocol gets its native methods.
    adopt_stream = "_adopt_stream",
    /// The class of protocols that bring their own buffers.
    buffered_protocol = "_buffered_protocol",
    /// Whether a server is told which transport came or went.
    server_takes_transport = "_server_takes_transport",
    // What `isinstance` sees of a transport: asyncio's classes, from which a native class can't inherit.
    stream_class = "_transport_class",
    datagram_class = "_datagram_class",
    tls_class = "_tls_transport_class",
    read_pipe_class = "_read_pipe_class",
    write_pipe_class = "_write_pipe_class",
}
