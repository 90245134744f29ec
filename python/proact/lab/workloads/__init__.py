"""The workloads that the models serve: each is one conversation, the same bytes through every model.

A workload has two ends. The server's end is a ``Session`` for each connection: it gets the bytes that arrived
and says what to send, and never touches a socket (sans-I/O). So a model is nothing but its way of waiting and
moving bytes. The load's end is an ``Exchange``: the bytes that a client sends and the bytes that must come
back.

To add a workload, write its session in a file here and add one entry to ``WORKLOADS``.
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
    """One request and its only correct response."""

    request: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of work: ``module`` of ``proact.lab.workloads`` has ``sessions()`` and ``exchange(size)``.

    A workload in which some connections ask for more than others also has ``slow()``.
    """

    name: str
    about: str
    module: str
    package: str | None = None  #: a package that must be importable, by its name on PyPI (and in import)

    def sessions(self) -> Sessions:
        """Return the factory of sessions. The server process calls this once; it may open files."""
        return self._module().sessions()  # type: ignore[no-any-return]

    def exchange(self, size: int) -> Exchange | None:
        """A client's request and its response, with ``size`` bytes of content; None: any bytes, echoed."""
        return self._module().exchange(size)  # type: ignore[no-any-return]

    def slow(self) -> Exchange | None:
        """The exchange of the connections that ask for more; None if all ask for the same."""
        found = getattr(self._module(), "slow", None)
        return None if found is None else found()

    def _module(self) -> Any:
        return importlib.import_module(f"proact.lab.workloads.{self.module}")


_ALL: Final = (
    Workload("echo", "bytes come back as they were sent", "echo"),
    Workload("web", "HTTP/1.1 with keep-alive, answers of a given size", "web", "httptools"),
    Workload("mixed", "the same web server, which must also read a slow disk", "disk", "httptools"),
)

#: Every workload with connections by its name.
WORKLOADS: Final[dict[str, Workload]] = {workload.name: workload for workload in _ALL}
