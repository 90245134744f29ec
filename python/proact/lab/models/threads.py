"""Blocking I/O (Stevens, fig. 6.1), a thread for each connection.

Each thread sleeps in ``recv`` until data arrives, and in ``sendall`` until the peer has room. One system call
to read and one to write per message; the price is a thread, its stack and the switching.
"""

from __future__ import annotations

import socket
import threading
from typing import NoReturn

from proact.lab.models import CHUNK


def serve(listener: socket.socket) -> NoReturn:
    """Accept for ever; each connection gets a thread that lives as long as it does."""
    listener.setblocking(True)
    while True:
        try:
            connection, _ = listener.accept()
        except ConnectionError:  # the peer gave up while it waited in the backlog
            continue
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: socket.socket) -> None:
    """Send back what one peer sends, until it closes or resets."""
    with connection:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(CHUNK):
                connection.sendall(data)
        except ConnectionError:
            pass
