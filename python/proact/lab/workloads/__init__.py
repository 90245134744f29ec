"""The workloads that the models serve: each is one conversation, the same bytes through every model.

A workload has two ends. The server's end is a ``Session`` for each connection: it gets the bytes that arrived
and says what to send, and never touches a socket (sans-I/O). So a model is nothing but its way of waiting and
moving bytes. The load's end is an ``Exchange``: the bytes that a client sends and the bytes that must come
back.

To add a workload, write its session in a file here and add one entry to ``WORKLOADS``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

    A workload in which some connections ask for more than others also has ``slow()``. One whose work takes a
    given time has ``sessions(seconds)``.
    """

    name: str
    about: str
    module: str
    package: str | None = None  #: a package that must be importable, by its name on PyPI (and in import)
    churn: bool = False  #: each message has a connection of its own
    seconds: float | None = None  #: how long its work takes, if that can be chosen
    library: tuple[str, str] | None = None  #: a shared library that the load needs, and its Debian package
    backends: int = 0  #: other servers that it asks; ``sessions(ports)``
    lazy: tuple[int, float] | None = None  #: clients beside the others that read slowly: bytes per second

    @property
    def tls(self) -> bool:
        """Whether its bytes are encrypted."""
        return self.name == "tls"

    def opened(self, connections: int) -> int:
        """The most connections that one process has open, if so many clients are measured."""
        return connections * (1 + self.backends) + (self.lazy[0] if self.lazy else 0)

    def sessions(self, ports: Sequence[int] = ()) -> Sessions:
        """Return the factory of sessions. The server process calls this once; it may open files.

        ``ports`` are those of the back ends.
        """
        given = (ports,) if self.backends else () if self.seconds is None else (self.seconds,)
        made: Sessions = self._module().sessions(*given)
        return made

    def exchange(self, size: int) -> Exchange | None:
        """A client's request and its response, with ``size`` bytes of content; None: any bytes, echoed."""
        made: Exchange | None = self._module().exchange(size)
        return made

    def slow(self) -> Exchange | None:
        """The exchange of the connections that ask for more; None if all ask for the same."""
        found = getattr(self._module(), "slow", None)
        return None if found is None else found()

    def _module(self) -> Any:
        return importlib.import_module(f"proact.lab.workloads.{self.module}")


#: The slow readers, and the bytes per second that each reads.
LAZY: Final = (4, 64 * 1024.0)

_ALL: Final = (
    Workload("echo", "bytes come back as they were sent", "echo"),
    Workload("churn", "echo, each message over a connection of its own", "echo", churn=True),
    Workload("web", "HTTP/1.1 with keep-alive, answers of a given size", "web", "httptools"),
    Workload("mixed", "the same web server, which must also read a slow disk", "disk", "httptools"),
    Workload("cpu", "a handler that computes: 100 µs, or as cpu-20us says", "cpu", seconds=1e-4),
    Workload(
        "wait", "a handler that waits for another server: 10 ms, or as wait-2ms says", "wait", seconds=1e-2
    ),
    Workload("file", "a handler that reads its answer from a file in the page cache", "file"),
    Workload("tls", "echo over TLS 1.3", "tls", library=("libssl.so.3", "libssl3")),
    Workload("fanout", "a proxy that asks three back ends and joins their answers", "fanout", backends=3),
    Workload(
        "slow-readers", "echo, beside four clients that send far more than they read", "echo", lazy=LAZY
    ),
)

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

#: The longest work that a name can ask for, in seconds: the load gives up a connection after five.
LONGEST: Final = 2.0

_TIMED: Final = re.compile(r"([a-z]+)-([1-9][0-9]{0,5})(us|ms|s)")


def base(name: str) -> str:
    """The workload that a name is about: ``cpu`` for ``cpu-20us``."""
    return found[1] if (found := _TIMED.fullmatch(name)) else name


def timed(kind: str, seconds: float) -> str:
    """The name of a workload whose work takes so long: ``wait-2ms``; a second and more in whole ms."""
    micros = round(seconds * 1e6)
    whole = micros % 1000 == 0 or micros >= 1_000_000
    return f"{kind}-{round(micros / 1000)}ms" if whole else f"{kind}-{micros}us"


class _Workloads(dict[str, Workload]):
    """By name. A workload of a given time has a name for each time, and each is the same workload."""

    def __missing__(self, name: str) -> Workload:
        found = _TIMED.fullmatch(name)
        kind = self.get(found[1]) if found else None
        if found is None or kind is None or kind.seconds is None:
            raise KeyError(name)
        seconds = int(found[2]) * _UNITS[found[3]]
        if seconds > LONGEST:
            raise KeyError(name)
        return replace(kind, name=name, seconds=seconds)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except KeyError:
            return False


#: Every workload with connections by its name.
WORKLOADS: Final[dict[str, Workload]] = _Workloads({workload.name: workload for workload in _ALL})
