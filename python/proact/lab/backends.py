"""The back ends of the fanout workload: one process with web servers in Rust.

``python -m proact.lab.backends`` takes as many free ports of 127.0.0.1 as it is asked for, and says them in
one line of JSON on stdout.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from proact import _core
from proact.lab.environment import process_cpu_seconds
from proact.lab.lifetime import die_with_parent, pin_to
from proact.lab.models import BACKLOG

if TYPE_CHECKING:
    from types import TracebackType


class Backends:
    """A process with so many back ends, as a context manager; ``cpu`` is its core (None: all).

    Entering raises OSError if it does not start.
    """

    def __init__(self, count: int, *, parent: int, cpu: int | None = None) -> None:
        self._command = [sys.executable, "-m", "proact.lab.backends", str(count), str(parent)]
        self._command += [] if cpu is None else [str(cpu)]
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        # A session of its own, so that Ctrl-C reaches the measuring process only, which ends this one.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            assert self._process.stdout is not None
            self.ports = tuple(json.loads(self._process.stdout.readline() or b"[]"))
            if not self.ports:
                raise OSError("the back ends did not start")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def cpu_seconds(self) -> float:
        """CPU time of all of them so far, in seconds."""
        assert self._process is not None
        return process_cpu_seconds(self._process.pid)


def main(count: int, parent: int, cpu: int | None = None) -> None:
    """Serve until killed."""
    die_with_parent(parent)
    if cpu is not None:
        pin_to(cpu)
    with ExitStack() as opened:
        listeners = [
            opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
            for _ in range(count)
        ]
        print(json.dumps([each.getsockname()[1] for each in listeners]), flush=True)
        servers = [
            threading.Thread(target=_core.bare_server, args=("epoll", each.detach(), "web"))
            for each in listeners
        ]
    for each in servers:
        each.start()
    for each in servers:
        each.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
