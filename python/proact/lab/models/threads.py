"""Blocking I/O (Stevens, fig. 6.1), a thread for each connection.

Each thread sleeps in ``recv`` until data arrives, and in ``sendall`` until the peer has room. One system call
to read and one to write per message; the price is a thread, its stack and the switches.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models.blocking import accept, converse, secured

if TYPE_CHECKING:
    import socket
    import ssl

    from proact.lab.workloads import Sessions


def serve(listener: socket.socket, sessions: Sessions, *, tls: ssl.SSLContext | None = None) -> NoReturn:
    """Accept for ever; each connection gets a thread that lives as long as it does."""
    listener.setblocking(True)
    while True:
        if (connection := accept(listener)) is not None:
            serving = partial(converse, connection, sessions(), secure=secured(tls))
            threading.Thread(target=serving, daemon=True).start()
