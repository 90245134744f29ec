"""Signal-driven I/O (Stevens, fig. 6.4): the kernel signals that a socket has changed.

The process sleeps in ``sigwaitinfo`` (the signals are blocked, so no handler runs), and makes the copying
call itself, as with multiplexing. There is a signal for each change, not for each state (edge-triggered), so
a socket is tried until it would block. A real-time signal says which fd it is about and queues, as far as
RLIMIT_SIGPENDING allows; past that the kernel sends a plain SIGIO instead, and every connection is tried.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING, Any, Final, NoReturn

from proact.lab.models.attempt import Peer, accept_waiting, resumed
from proact.lab.models.pauses import Pauses

if TYPE_CHECKING:
    import socket

    from proact.lab.workloads import Sessions

#: Not the first real-time signal, which debuggers and C libraries like to use. SIGIO has a lower number, so
#: it is delivered first.
CHANGED: Final = signal.SIGRTMIN + 1
OVERFLOW: Final = signal.SIGIO


def arm(fd: int) -> None:
    """Have the kernel send ``CHANGED`` when ``fd`` changes; it does not report what is there already."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, CHANGED)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


def number(info: signal.struct_siginfo) -> int:
    """The number that a queued signal carries: ``si_fd`` here, ``si_value`` for a signal sent by a program.

    Python shows neither, but where a long has 64 bits both lie where ``si_status`` does in Linux' siginfo_t.
    """
    return info.si_status


def wait(signals: set[signal.Signals | int], pauses: Pauses[Any]) -> signal.struct_siginfo | None:
    """Wait for a signal, or until a pause is over: None. A pause goes first, so that no burst delays it."""
    left = pauses.left()
    return signal.sigtimedwait(signals, left) if left else None


def serve(listener: socket.socket, sessions: Sessions) -> NoReturn:
    """Wait for signals for ever, and try the connection that each is about."""
    signals = {CHANGED, OVERFLOW}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    listener.setblocking(False)
    arm(listener.fileno())
    peers: dict[int, Peer] = {}
    pauses: Pauses[Peer] = Pauses()

    def attempt(fd: int) -> None:
        peer = peers.get(fd)
        if peer is not None and not peer.exhaust():  # None: it has been closed meanwhile
            peers.pop(fd).connection.close()

    def accept() -> None:
        for peer in accept_waiting(listener, sessions, pauses):
            fd = peer.connection.fileno()
            peers[fd] = peer
            arm(fd)
            attempt(fd)  # for data that came before the signal was armed

    accept()
    while True:
        info = signal.sigwaitinfo(signals) if not pauses else wait(signals, pauses)
        if info is None:
            for peer in resumed(pauses):
                attempt(peer.connection.fileno())
            continue
        overflow = info.si_signo == OVERFLOW
        if overflow or number(info) == listener.fileno():
            accept()
        for fd in list(peers) if overflow else (number(info),):
            attempt(fd)
