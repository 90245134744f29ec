"""proact.green: code that looks blocking, a greenlet for each connection, on proact's loop.

Each connection is served by the code of the model ``threads``. Where a thread would sleep in ``recv``, the
loop runs another greenlet. The engine is the best one here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from proact import green
from proact.green.hub import hub_here
from proact.lab.models.blocking import accept, converse
from proact.lab.workloads.session import Ask, Pause

if TYPE_CHECKING:
    import socket
    import ssl

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Wanted


def serve(listener: socket.socket, sessions: Sessions, *, tls: ssl.SSLContext | None = None) -> NoReturn:
    """Accept for ever; each connection gets a greenlet that lives as long as it does."""

    secure = partial(green.wrap_socket, context=tls, server_side=True) if tls is not None else None

    def accept_all() -> None:
        waiting = green.socket(fileno=listener.detach())
        while True:
            if (connection := accept(waiting)) is not None:
                green.spawn(converse, connection, sessions(), on_loop, secure=secure)

    green.run_main(accept_all, watchdog=None)
    raise RuntimeError("the greenlet that accepts stopped by itself")


def on_loop(wanted: Wanted) -> int:
    """Pause, ask other servers, or read from a file: by the ring, or on other engines by a native thread."""
    if isinstance(wanted, Ask):
        return wanted.blocking(green.create_connection)
    if isinstance(wanted, Pause):
        green.sleep(wanted.seconds)
        return 0
    return green.await_(hub_here().loop._read_at(wanted.fd, wanted.buffer, wanted.offset))
