"""gevent: code that looks blocking, a greenlet for each connection, I/O multiplexing (libev on epoll) below.

Nothing is monkey-patched: gevent's own sockets are used directly. A ``recv`` that would block switches to the
hub, which waits for all connections at once.
"""

from __future__ import annotations

import importlib
import socket
from typing import Any, NoReturn

from proact.lab.models import CHUNK


def serve(listener: socket.socket) -> NoReturn:
    """Serve with gevent's StreamServer until the process is killed."""
    # By name, because gevent is optional and the type checker may not have it.
    gevent_socket: Any = importlib.import_module("gevent.socket")
    stream_server: Any = importlib.import_module("gevent.server").StreamServer
    stream_server(gevent_socket.socket(fileno=listener.detach()), echo).serve_forever()
    raise RuntimeError("gevent's server stopped by itself")


def echo(connection: Any, _address: object) -> None:
    """Send back what one peer sends, until it closes or resets."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(CHUNK):
            connection.sendall(data)
    except ConnectionError:
        pass
