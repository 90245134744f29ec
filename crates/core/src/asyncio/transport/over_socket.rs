//! What the transports over a socket have in common beyond `base.rs`: the addresses, and the Python socket, which shares the
//! fd. A stream has one made only if the program asks for it.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use super::base::{Living, Transport};
use super::release;
use crate::py::address::Ends;
use crate::py::make::{Int, Text, dict, name};

pub(super) trait OverSocket: Transport {
    fn ends(&self) -> &Ends;

    fn extra_info<'py>(
        this: &Bound<'py, Self>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let extra = {
            let state = this.get().state().get()?;
            state.life().extra.as_ref().map(|extra| extra.clone_ref(py))
        };
        if let Some(extra) = extra
            && let Some(value) = extra.bind(py).get_item(Text(name))?
        {
            return Ok(Some(value));
        }
        let ends = this.get().ends();
        match name {
            // Known, even where it is None: no default takes its place, nor does it with asyncio.
            "peername" => ends.peer().map(|end| end.to_python(py)).transpose(),
            "sockname" => ends.local().map(|end| end.to_python(py)).transpose(),
            "socket" => Ok(Self::socket_view(this)?.or(default)),
            _ => Ok(default),
        }
    }

    /// The socket as a program may have it, remembered for the next time.
    fn socket_view<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let Some(socket) = Self::py_socket(this)? else {
            return Ok(None);
        };
        let module = py.import(name!("asyncio.trsock"))?;
        let view = module.call_method1(name!("TransportSocket"), (socket,))?;
        let made = dict(py)?.unbind();
        let extra = {
            let mut state = this.get().state().get()?;
            state.life_mut().extra.get_or_insert(made).clone_ref(py)
        };
        extra.bind(py).set_item(name!("socket"), &view)?;
        Ok(Some(view))
    }

    fn py_socket<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        let (fd, known) = {
            let state = this.get().state().get()?;
            let life = state.life();
            (life.fd, life.file.as_ref().map(|socket| socket.clone_ref(py)))
        };
        if let Some(socket) = known {
            return Ok(Some(socket.into_bound(py)));
        }
        if fd < 0 {
            return Ok(None);
        }
        // It shares the fd, which stays the transport's (see `release_socket`).
        let keywords = dict(py)?;
        keywords.set_item(name!("fileno"), Int::new(fd))?;
        let socket = py
            .import(name!("socket"))?
            .getattr(name!("socket"))?
            .call((), Some(&keywords))?;
        let known = {
            let mut state = this.get().state().get()?;
            let life = state.life_mut();
            match &life.file {
                Some(first) => Some(first.clone_ref(py)),
                None if life.fd == fd => {
                    life.file = Some(socket.clone().unbind());
                    return Ok(Some(socket));
                }
                None => None,
            }
        };
        // Another thread has made one meanwhile, or the transport has ended: ours must not close the fd.
        socket.call_method0(name!("detach"))?;
        Ok(known.map(|first| first.into_bound(py)))
    }

    /// Takes the fd away from the Python socket that shares it. True: it was still there, so the transport closes it.
    fn release_socket(&self, py: Python<'_>) -> PyResult<bool> {
        let socket = self.state().get()?.life_mut().file.take();
        match socket {
            Some(socket) => Ok(socket.call_method0(py, name!("detach"))?.extract::<RawFd>(py)? >= 0),
            None => Ok(true),
        }
    }

    /// The end of `finish`: closes the fd, unless the program has closed the socket.
    fn give_up(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        if fd < 0 {
            // It found out before that the program has closed the socket.
            return Ok(());
        }
        release::give_up(py, self.scheduler().get(), fd, self.release_socket(py))
    }

    /// The transport is dropped, perhaps without being closed. No op of it is in flight: its slot would keep the transport alive.
    fn dropped(&self) {
        let Ok(mut state) = self.state().get() else { return };
        let fd = state.life_mut().take_fd();
        drop(state);
        if fd >= 0 {
            release::abandoned(self.scheduler().get(), fd, |py| self.release_socket(py));
        }
    }
}
