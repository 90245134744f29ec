"""The ceilings: the same work in Rust, with no Python per message, so that the interpreter's price shows.

The servers are in ``crates/lab`` (``threads``, ``epoll``, ``io_uring``); Python only starts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from proact import _core

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, _sessions: Sessions, model: str) -> NoReturn:
    """Hand the listening socket to the Rust server called ``model`` until the process is killed."""
    _core.bare_echo_server(model, listener.detach())  # it closes the fd when it ends
    raise RuntimeError(f"the bare {model} server stopped by itself")
