"""The fanout workload: a proxy that asks three back ends, each for a third, and joins their answers.

The back ends are web servers in Rust (``proact.lab.backends``), on the core of the load. Each connection of a
client has its own connections to them, which stay open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proact.lab.workloads import Exchange
from proact.lab.workloads.lines import Lines
from proact.lab.workloads.session import Ask
from proact.lab.workloads.web import content, counted, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.workloads import Sessions

__all__ = ("exchange", "sessions")

#: The back ends that each request asks.
BACKENDS: Final = 3


def thirds(size: int) -> list[int]:
    """The bytes that each back end is asked for."""
    return [(size + at) // BACKENDS for at in range(BACKENDS)]


class Joining(Lines):
    """Asks all back ends at once, then answers with their bodies in order."""

    __slots__ = ("_ports", "links")

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._ports = ports
        self.links: list[Any] = []

    def begin(self, size: int) -> bytes:
        expected = [content(part, keep=True) for part in thirds(size)]
        requests = [request(f"/bytes/{part}") for part in thirds(size)]
        heads = [len(whole) - part for whole, part in zip(expected, thirds(size), strict=True)]
        self.wanted = Ask(self._ports, requests, expected, heads, self.links)
        return b""

    def supply(self, count: int) -> bytes:
        wanted = self.wanted
        assert isinstance(wanted, Ask)
        self.wanted = None
        return wanted.bodies() + self.go_on()


def sessions(ports: Sequence[int]) -> Sessions:
    """Sessions that ask the back ends on these ports of 127.0.0.1."""
    return lambda: Joining(ports)


def exchange(size: int) -> Exchange:
    """Ask for ``size`` bytes."""
    return Exchange(b"%d\n" % size, b"".join(map(counted, thirds(size))))
