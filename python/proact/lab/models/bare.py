"""The ceilings: the same work in Rust, with no Python per message, so that the interpreter's price shows.

The servers are in ``crates/lab`` (``threads``, ``epoll``, ``io_uring``); Python only starts them.
"""

from __future__ import annotations

import socket
from typing import NoReturn

from proact import _core


def serve(listener: socket.socket, model: str) -> NoReturn:
    """Hand the listening socket to the Rust server called ``model`` until the process is killed."""
    _core.bare_echo_server(model, listener.fileno())
    raise RuntimeError(f"the bare {model} server stopped by itself")
