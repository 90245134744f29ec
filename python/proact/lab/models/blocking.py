"""Blocking I/O (Stevens, fig. 6.1), one connection after the other.

The process sleeps in ``recv`` until its one peer sends something; other peers that connect wait in the
backlog until that peer has gone. One system call to read and one to write per message, and no concurrency at
all.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from proact.lab.models import CHUNK
from proact.lab.workloads.session import on_the_spot

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Session, Wanted


def serve(listener: socket.socket, sessions: Sessions, *, tls: ssl.SSLContext | None = None) -> NoReturn:
    """Serve one connection to its end, then the next, for ever."""
    listener.setblocking(True)
    while True:
        if (connection := accept(listener)) is not None:
            converse(connection, sessions(), secure=secured(tls))


def accept(listener: socket.socket) -> socket.socket | None:
    """Wait for a connection; None if the peer gave up while it waited in the backlog."""
    try:
        connection, _ = listener.accept()
    except ConnectionError:
        return None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def secured(tls: ssl.SSLContext | None) -> Callable[[socket.socket], socket.socket] | None:
    """What puts TLS over a connection that blocks."""
    return partial(tls.wrap_socket, server_side=True) if tls is not None else None


def converse(
    connection: socket.socket,
    session: Session,
    do: Callable[[Wanted], int] = on_the_spot,
    *,
    secure: Callable[[socket.socket], socket.socket] | None = None,
) -> None:
    """Answer one peer until it closes or resets, or until the session is over.

    ``do`` does what the session wants; ``secure`` puts TLS over the connection.
    """
    with connection:
        try:
            if secure is not None:
                connection = secure(connection)
            while not session.over and (data := connection.recv(CHUNK)):
                connection.sendall(session.answer(data, do))
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            connection.close()  # with TLS, another object has the fd
