"""gevent: code that looks blocking, a greenlet for each connection, I/O multiplexing below.

gevent brings libev, which waits by epoll; or proact's loop waits instead, by its best engine here. Nothing is
monkey-patched: gevent's own sockets are used directly. A ``recv`` that would block switches to the hub, which
waits for all connections at once.
"""

from __future__ import annotations

import importlib
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from proact.lab.models.blocking import converse, secured
from proact.lab.workloads.session import Ask, Pause
from proact.lab.workloads.tls import CERTIFICATE

if TYPE_CHECKING:
    import ssl

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Wanted


def serve(
    listener: socket.socket, sessions: Sessions, loop: str = "libev", *, tls: ssl.SSLContext | None = None
) -> NoReturn:
    """Serve with gevent's StreamServer until the process is killed; ``loop``: "libev" or "proact"."""
    if loop == "proact":
        importlib.import_module("proact.green.gevent_loop").use()
    # By name, because gevent is optional and the type checker may not have it.
    gevent_socket: Any = importlib.import_module("gevent.socket")
    stream_server: Any = importlib.import_module("gevent.server").StreamServer

    sleep: Any = importlib.import_module("gevent").sleep

    secure: Any = None
    if tls is not None:
        # gevent waits in a context of its own class.
        context: Any = importlib.import_module("gevent.ssl").SSLContext(tls.protocol)
        context.minimum_version = tls.minimum_version
        context.load_cert_chain(CERTIFICATE)
        secure = secured(context)

    def do(wanted: Wanted) -> int:
        if isinstance(wanted, Ask):
            return wanted.blocking(gevent_socket.create_connection)
        if not isinstance(wanted, Pause):
            return wanted.read()
        sleep(wanted.seconds)
        return 0

    def handle(connection: Any, _address: object) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        converse(connection, sessions(), do, secure=secure)

    stream_server(gevent_socket.socket(fileno=listener.detach()), handle).serve_forever()
    raise RuntimeError("gevent's server stopped by itself")
