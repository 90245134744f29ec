"""What the models serve: each workload is one conversation, the same bytes through every model.

A workload has two ends. The server's is a ``Session`` for each connection: it is handed what arrived and says
what to send, and never touches a socket (sans-I/O), so that a model is nothing but its way of waiting and
moving bytes. The load's end is an ``Exchange``: what a client sends and the bytes that must come back.

To add a workload: its session in a file here, one entry in ``WORKLOADS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from proact.lab.workloads.session import Session

#: Makes the session of a new connection.
Sessions = Callable[[], Session]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its only right response."""

    request: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of work: ``module`` of ``proact.lab.workloads`` has ``sessions()`` and ``exchange(size)``.

    One in which some ask for more than others also has ``slow()``.
    """

    name: str
    about: str
    module: str
    package: str | None = None  #: a package that must be importable, by its name on PyPI (and in import)

    def sessions(self) -> Sessions:
        """What the server process calls once: it may open files. Returns the factory of sessions."""
        return self._module().sessions()  # type: ignore[no-any-return]

    def exchange(self, size: int) -> Exchange | None:
        """What a client says and hears, with ``size`` bytes of content; None: any bytes, which come back."""
        return self._module().exchange(size)  # type: ignore[no-any-return]

    def slow(self) -> Exchange | None:
        """What those say and hear who ask for more than the others; None if all ask for the same."""
        found = getattr(self._module(), "slow", None)
        return None if found is None else found()

    def _module(self) -> Any:
        return importlib.import_module(f"proact.lab.workloads.{self.module}")


_ALL: Final = (
    Workload("echo", "bytes come back as they were sent", "echo"),
    Workload("web", "HTTP/1.1 with keep-alive, answers of a given size", "web", "httptools"),
    Workload("mixed", "the same web server, which must also read a slow disk", "disk", "httptools"),
)

#: Every workload of connections by its name.
WORKLOADS: Final[dict[str, Workload]] = {workload.name: workload for workload in _ALL}
