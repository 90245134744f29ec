"""The ceilings: the same work in Rust, with no Python per message, so that the interpreter's price shows.

The servers are in ``crates/lab`` (``threads``, ``epoll``, ``io_uring``); Python only starts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from proact import _core
from proact.lab.workloads.echo import Echo

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions, model: str) -> NoReturn:
    """Hand the listening socket to the Rust server called ``model`` until the process is killed."""
    workload = "echo" if isinstance(sessions(), Echo) else "web"  # a server in Rust has its own sessions
    _core.bare_server(model, listener.detach(), workload)  # the server closes the fd when it ends
    raise RuntimeError(f"the bare {model} server stopped by itself")
