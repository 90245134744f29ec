"""I/O multiplexing (Stevens, fig. 6.3) with libevent, the C library, called through ctypes.

The process sleeps only in ``event_base_dispatch``, which waits for all connections (with ``epoll`` on Linux)
and calls back for each ready connection. Each callback enters Python anew: that is part of this model's
price.
"""

from __future__ import annotations

import ctypes
import os
import traceback
from typing import TYPE_CHECKING, Any, Final, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting, resumed
from proact.lab.models.pauses import Pauses

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proact.lab.workloads import Sessions

#: The shared library, and Debian's package that has it.
LIBRARY: Final = ("libevent_core-2.1.so.7", "libevent-core-2.1-7")

# event2/event.h
READ: Final = 0x02
WRITE: Final = 0x04
PERSIST: Final = 0x10
CALLBACK: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_short, ctypes.c_void_p)


class TimeVal(ctypes.Structure):
    """``struct timeval``."""

    _fields_ = (("seconds", ctypes.c_long), ("microseconds", ctypes.c_long))

    @classmethod
    def of(cls, seconds: float) -> TimeVal:
        """So many seconds, rounded up: a timer that is early would be set again."""
        return cls(*divmod(int(seconds * 1e6) + 1, 1_000_000))


def library() -> Any:
    """libevent, with the types of the functions that are used."""
    found = ctypes.CDLL(LIBRARY[0])
    found.event_base_new.restype = found.event_new.restype = ctypes.c_void_p
    found.event_new.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_short,
        CALLBACK,
        ctypes.c_void_p,
    )
    found.event_add.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    for function in (found.event_del, found.event_free, found.event_base_dispatch):
        function.argtypes = (ctypes.c_void_p,)
    return found


def callback(ready: Callable[[int], None]) -> Any:
    """``ready(fd)`` as a C function; keep it as long as it may be called."""

    def called(fd: int, _what: int, _argument: object) -> None:
        try:
            ready(fd)
        except BaseException:  # ctypes would report it and continue
            traceback.print_exc()
            os._exit(1)

    return CALLBACK(called)


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait with libevent for ever. A connection has an event to read, and another for while it has a rest."""
    listener.setblocking(False)
    event = library()
    base = event.event_base_new()
    peers: dict[int, tuple[Peer, int, int]] = {}
    pauses: Pauses[Peer] = Pauses()
    armed = False

    def accept(_fd: int) -> None:
        for peer in accept_waiting(listener, sessions, pauses):
            fd = peer.connection.fileno()
            reading, writing = (
                event.event_new(base, fd, what | PERSIST, on_ready, None) for what in (READ, WRITE)
            )
            peers[fd] = peer, reading, writing
            event.event_add(reading, None)

    def ready(fd: int) -> None:
        peer, reading, writing = peers[fd]
        if not peer.attempt():
            event.event_free(reading)  # this also removes the event
            event.event_free(writing)
            peers.pop(fd)[0].connection.close()
        elif bool(peer.rest) != peer.writing:  # change the watched events only if they differ
            event.event_del(writing if peer.writing else reading)
            event.event_add(reading if peer.writing else writing, None)
            peer.writing = not peer.writing
        arm()

    def resume(_fd: int) -> None:
        nonlocal armed
        armed = False
        for peer in resumed(pauses):
            ready(peer.connection.fileno())
        arm()

    def arm() -> None:
        """Have libevent call when the next pause is over, if there is one."""
        nonlocal armed
        if pauses and not armed:
            armed = True
            event.event_add(timer, ctypes.byref(TimeVal.of(pauses.left() or 0.0)))

    on_accept, on_ready, on_time = callback(accept), callback(ready), callback(resume)
    timer = event.event_new(base, -1, 0, on_time, None)
    event.event_add(event.event_new(base, listener.fileno(), READ | PERSIST, on_accept, None), None)
    event.event_base_dispatch(base)
    raise RuntimeError("libevent has nothing left to wait for")
