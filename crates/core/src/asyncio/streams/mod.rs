//! `asyncio.StreamReader` on a native transport: `feed_data` and the coroutines `read`, `readexactly`, `readuntil` and
//! `readline`. All else is asyncio's own code, and so are these methods where something unusual happens (`reading.rs`).
//!
//! When a native transport opens whose protocol is asyncio's own `StreamReaderProtocol`, its reader becomes an instance of the
//! class that has the methods of this file (`python/proact/streams.py`).

mod draining;
mod reading;
mod state;

pub use draining::{Draining, WriterState};
pub use reading::Reading;
pub use state::StreamState;

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType, PyWeakrefMethods, PyWeakrefReference};

use crate::asyncio::transport::protocol;
use crate::asyncio::transport::stream::StreamTransport;
use crate::py::call::{method0, method1, own_attribute};
use crate::py::coroutine::{Step, coroutine_methods};
use crate::py::make::{Name, name, py_error};
use crate::py::native_method::{self, Call, native_method};
use crate::reactor::waiter::wake_future;
use reading::Want;

/// A class that has methods of this file, and asyncio's own, its base.
type Native = PyOnceLock<(Py<PyType>, Py<PyType>)>;

static READER: Native = PyOnceLock::new();
static WRITER: Native = PyOnceLock::new();

/// Whether an object is such a reader.
#[inline]
fn is_native(reader: &Bound<'_, PyAny>) -> bool {
    let known = READER.get(reader.py());
    known.is_some_and(|(class, _)| reader.get_type_ptr() == class.as_ptr().cast())
}

/// What asyncio's own method returns.
fn original<'py>(
    class: &'static Native,
    object: &Bound<'py, PyAny>,
    name: &'static Name,
    argument: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let (_, base) = class
        .get(py)
        .ok_or_else(|| py_error::<PyTypeError>("proact's streams are not installed"))?;
    let method = base.bind(py).getattr(name)?;
    match argument {
        Some(argument) => method.call1((object, argument)),
        None => method.call1((object,)),
    }
}

/// Takes a piece that was received: keeps it, wakes the coroutine that waits for it, and has the transport pause if there is
/// too much.
fn feed(reader: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    let state = state::of(reader)?;
    let stream = state.get();
    let bytes = match data.cast_exact::<PyBytes>() {
        Ok(bytes) if !bytes.as_bytes().is_empty() && !stream.has_ended() => bytes,
        _ => return original(&READER, reader, name!("feed_data"), Some(data)).map(drop),
    };
    let py = reader.py();
    let count = stream.push(bytes)?;
    if let Some(waiter) = stream.take_waiter() {
        wake_future(stream.scheduler(py).get(), waiter.bind(py))?;
    }
    if count <= stream.limit().saturating_mul(2) {
        return Ok(());
    }
    let Some(transport) = stream.to_pause(py) else {
        return Ok(());
    };
    let paused = method0(transport.bind(py), name!("pause_reading"));
    let Err(error) = paused else { return Ok(()) };
    stream.set_paused(false);
    if !error.is_instance_of::<PyNotImplementedError>(py) {
        return Err(error);
    }
    // A transport that can't pause is not asked again.
    stream.set_transport(None);
    Ok(())
}

/// `StreamReaderProtocol.data_received`, called by a native transport.
fn data_received(protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
    let reference = own_attribute(protocol, name!("_stream_reader_wr"))?;
    if let Ok(reference) = reference.cast::<PyWeakrefReference>()
        && let Some(reader) = reference.upgrade()
        && is_native(&reader)
    {
        return feed(&reader, data);
    }
    method1(protocol, name!("data_received"), data.as_any()).map(drop)
}

native_method!(feed_data, |call| {
    feed(call.object(), call.argument("feed_data", "data")?)?;
    Ok(call.py().None())
});

/// The argument of a method that has a default for it.
fn optional<'a, 'py>(
    call: &'a Call<'py>,
    method: &str,
    name: &str,
) -> PyResult<Option<&'a Bound<'py, PyAny>>> {
    match call.len() {
        0 => Ok(None),
        _ => call.argument(method, name).map(Some),
    }
}

native_method!(read, |call| {
    let count = optional(call, "read", "n")?;
    match count.map(|count| count.extract::<isize>()) {
        Some(Ok(n)) if n > 0 => Reading::begin(call.object(), Want::Some(n as usize)),
        _ => Ok(original(&READER, call.object(), name!("read"), count)?.unbind()),
    }
});

native_method!(exception, |call| {
    call.no_arguments("exception")?;
    Ok(state::of(call.object())?
        .get()
        .exception(call.py())
        .unwrap_or_else(|| call.py().None()))
});

native_method!(readexactly, |call| {
    let count = call.argument("readexactly", "n")?;
    match count.extract::<isize>() {
        Ok(n) if n > 0 => Reading::begin(call.object(), Want::Exactly(n as usize)),
        _ => Ok(original(&READER, call.object(), name!("readexactly"), Some(count))?.unbind()),
    }
});

native_method!(readuntil, |call| {
    let separator = optional(call, "readuntil", "separator")?;
    match separator {
        None => Reading::begin(call.object(), Want::Until(None)),
        Some(given) => match given.cast_exact::<PyBytes>() {
            Ok(bytes) if !bytes.as_bytes().is_empty() => {
                Reading::begin(call.object(), Want::Until(Some(bytes.clone().unbind())))
            }
            _ => Ok(original(&READER, call.object(), name!("readuntil"), separator)?.unbind()),
        },
    }
});

native_method!(readline, |call| {
    call.no_arguments("readline")?;
    Reading::begin(call.object(), Want::Line)
});

native_method!(drain, |call| {
    call.no_arguments("drain")?;
    Draining::begin(call.object())
});

native_method!(write, |call| {
    let data = call.argument("write", "data")?;
    match draining::of(call.object())? {
        Some(state) => StreamTransport::write_copied(state.get().transport(call.py()), data)?,
        None => drop(original(&WRITER, call.object(), name!("write"), Some(data))?),
    }
    Ok(call.py().None())
});

fn awaited_already() -> PyErr {
    py_error::<PyRuntimeError>("cannot reuse already awaited coroutine")
}

/// What a coroutine awaits that has nothing to wait for.
#[pyclass(frozen, module = "proact._core")]
pub struct Nothing;

impl Nothing {
    fn step(slf: &Bound<'_, Self>) -> PyResult<Step> {
        Ok(Step::Finished(slf.py().None()))
    }

    fn end<'py>(_: &Bound<'py, Self>) -> Option<Bound<'py, PyAny>> {
        None
    }
}

coroutine_methods!(Nothing);

#[pymethods]
impl Nothing {
    #[new]
    fn new() -> Nothing {
        Nothing
    }
}

/// Gives `reader` and `writer`, each a subclass and asyncio's class, which is its base, their methods, and has native transports feed the readers of `protocol`
/// without Python in between.
#[pyfunction]
pub fn install_streams(
    reader: (Bound<'_, PyType>, Bound<'_, PyType>),
    writer: (Bound<'_, PyType>, Bound<'_, PyType>),
    protocol: Bound<'_, PyType>,
) -> PyResult<()> {
    let py = protocol.py();
    let methods = [
        (
            c"feed_data",
            feed_data as ffi::PyCFunctionFastWithKeywords,
            c"feed_data($self, data)\n--\n\n",
        ),
        (
            c"exception",
            exception,
            c"exception($self)\n--\n\nWhy the connection failed, or None.",
        ),
        (
            c"read",
            read,
            c"read($self, n=-1)\n--\n\nReads up to `n` bytes; all until the end of the stream if n is -1.",
        ),
        (
            c"readexactly",
            readexactly,
            c"readexactly($self, n)\n--\n\nReads exactly `n` bytes.",
        ),
        (
            c"readuntil",
            readuntil,
            c"readuntil($self, separator=b'\\n')\n--\n\nReads until `separator` is found.",
        ),
        (
            c"readline",
            readline,
            c"readline($self)\n--\n\nReads until a line ends.",
        ),
    ];
    for (name, method, doc) in methods {
        native_method::add(&reader.0, name, method, doc)?;
    }
    native_method::add(
        &writer.0,
        c"write",
        write,
        c"write($self, data)\n--\n\nWrites to the transport.",
    )?;
    let drain_doc = c"drain($self)\n--\n\nWaits until the transport takes more.";
    native_method::add(&writer.0, c"drain", drain, drain_doc)?;
    let _ = READER.set(py, (reader.0.unbind(), reader.1.unbind()));
    let _ = WRITER.set(py, (writer.0.unbind(), writer.1.unbind()));
    protocol::install(&protocol, data_received);
    Ok(())
}
