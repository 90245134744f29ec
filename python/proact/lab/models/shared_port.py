"""One port, several workers: processes or threads, each with a loop of ``epoll``, as many as cores.

- ``reuseport``: processes, each with a listening socket of its own (SO_REUSEPORT). A hash chooses one.
- ``prefork``: processes with one listening socket for all. Who is awake and accepts first has the connection.
- ``threads``: as ``reuseport``, in threads of one process. Under the interpreter's lock, one runs at a time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn

from proact.lab.lifetime import die_with_parent
from proact.lab.models import BACKLOG, multiplex_epoll

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

#: The fewest and the most workers.
FEWEST: Final = 2
MOST: Final = 16


def workers() -> int:
    """How many there are: one for each core that this process may use, within bounds."""
    return min(MOST, max(FEWEST, len(os.sched_getaffinity(0))))


def beside(listener: socket.socket) -> socket.socket:
    """Another listening socket on the same port, which has SO_REUSEPORT."""
    another = socket.socket(listener.family, listener.type)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(listener.getsockname())
    another.listen(BACKLOG)
    return another


def serve(listener: socket.socket, sessions: Sessions, how: str) -> NoReturn:
    """Start the workers; this process (this thread) is one of them."""
    # All listen before the first accepts, so that no early connection finds fewer than all.
    listeners = [listener if how == "prefork" else beside(listener) for _ in range(workers() - 1)]
    if how == "threads":
        for each in listeners:
            threading.Thread(target=multiplex_epoll.serve, args=(each, sessions), daemon=True).start()
        multiplex_epoll.serve(listener, sessions)
    parent, processes = os.getpid(), []
    for each in listeners:
        if (pid := os.fork()) == 0:
            die_with_parent(parent)
            multiplex_epoll.serve(each, sessions)
        processes.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: _end(processes))
    for each in listeners:
        if each is not listener:
            each.close()  # or connections would wait here for nobody
    multiplex_epoll.serve(listener, sessions)


def _end(processes: list[int]) -> NoReturn:
    """End with the other workers, whose CPU time is then in this process's account, not in nobody's."""
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    for pid in processes:
        os.waitpid(pid, 0)
    sys.exit(0)
