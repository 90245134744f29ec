"""The memory that connections take: a server's resident memory at several numbers of them, and a line.

The server is fresh, so that no earlier load has left memory behind. Its connections are opened in steps and
stay open; each has had one exchange. What the line has at no connection is the fixed part.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

from proact.lab.environment import read
from proact.lab.server_process import ServerError, ServerProcess, sample
from proact.lab.spread import Spread

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from proact.lab.results import Held

#: With fewer connections, the pages of 4 KiB are larger than what is measured.
LEAST: Final = 16

#: The steps in which the connections are opened.
STEPS: Final = 4

#: The seconds that a server has after each step, until its memory is read.
SETTLING: Final = 0.03

#: The largest message of the exchanges, in bytes: a thousand connections have one each.
LARGEST: Final = 64 << 10

#: The seconds that an exchange may take.
TIMEOUT: Final = 10.0

#: Student's t for 95 % by degrees of freedom; beyond these, 2.0 is near enough.
_T: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_T_FROM_HERE: Final = 2.09


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes by the number of connections: ``fixed`` and ``slope``, each with its interval of 95 %."""

    fixed: Spread
    slope: Spread


def held(server: ServerProcess, size: int, connections: int) -> list[Held]:
    """What ``server`` and the kernel hold at so many connections, in steps from none.

    Raises ServerError if an answer is wrong or does not come, OSError if no connection can be made.
    """
    server.check(size := min(size, LARGEST))
    readings: list[Held] = []
    with ExitStack() as opened:
        count = 0
        for step in range(STEPS + 1):
            new = []
            for _ in range(connections * step // STEPS - count):
                new.append(server.connect(TIMEOUT))
                opened.enter_context(new[-1])
            _exchange(server, new, size)
            count += len(new)
            time.sleep(SETTLING)
            readings.append(
                {"connections": count, "resident": server.resident_bytes(), "kernel": kernel_bytes()}
            )
    return readings


def _exchange(server: ServerProcess, connections: list[socket.socket], size: int) -> None:
    """One exchange on each, all under way at once, because a handler may take its time."""
    expected = []
    for connection in connections:
        exchanged = sample(server.workload, size)
        connection.sendall(exchanged.request)
        expected.append(exchanged.response)
    for connection, response in zip(connections, expected, strict=True):
        returned = bytearray()
        while len(returned) < len(response) and (data := connection.recv(LARGEST)):
            returned += data
        if returned != response:
            raise ServerError(f"answered {len(returned)} of {len(response)} bytes, or other bytes")


def kernel_bytes() -> int:
    """What the kernel holds, machine-wide: slabs (sockets, files, epoll's items), the stacks of threads, page
    tables, and the buffers of TCP.

    Both ends of each connection are in it.
    """
    lines = dict(line.split(":", 1) for line in read("/proc/meminfo").splitlines())
    kinds = sum(int(lines.get(name, "0 kB").split()[0]) for name in ("Slab", "KernelStack", "PageTables"))
    buffers = 0
    for line in read("/proc/net/sockstat").splitlines():
        words = line.split()
        if words[:1] == ["TCP:"] and "mem" in words:
            buffers = int(words[words.index("mem") + 1]) * 4096
    return kinds * 1024 + buffers


def fit(points: Iterable[tuple[float, float]]) -> Fit | None:
    """The line of least squares; None with fewer than three different numbers of connections."""
    found = list(points)
    count = len(found)
    if len({x for x, _ in found}) < 3:
        return None
    mean_x, mean_y = sum(x for x, _ in found) / count, sum(y for _, y in found) / count
    spread = sum((x - mean_x) ** 2 for x, _ in found)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in found) / spread
    fixed = mean_y - slope * mean_x
    free = count - 2
    off = sum((y - fixed - slope * x) ** 2 for x, y in found) / free
    t = _T[free - 1] if free <= len(_T) else _T_FROM_HERE
    by_slope = t * sqrt(off / spread)
    by_fixed = t * sqrt(off * (1 / count + mean_x**2 / spread))
    return Fit(
        Spread(fixed, fixed - by_fixed, fixed + by_fixed), Spread(slope, slope - by_slope, slope + by_slope)
    )
