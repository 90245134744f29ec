"""Owns: what is measured: the cases, their names, and which of them each mode runs.

A case's name is its path in `--only`, in the results and in docs/performance.md: `echo/protocol/1KiB/100`,
`loop/call_soon_chain`.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders import BARE, LOOPS
from benchmarks.micro import BENCHES

STYLES = ("protocol", "buffered", "streams", "sock")
SIZES = {"1KiB": 1024, "64KiB": 65536}
CONNECTIONS = (1, 100, 1000)
FD_SETSIZE = 1024
"""select(2) can watch no file descriptor from this number on."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `kind` is "echo" (server and load, two processes) or "loop" (one process, no network).
    """

    name: str
    kind: str
    style: str = ""
    size: int = 0
    connections: int = 0
    idle: int = 0

    @property
    def unit(self) -> str:
        """What its rate counts."""
        return "messages" if self.kind == "echo" else BENCHES[self.name.removeprefix("loop/")].unit

    @property
    def title(self) -> str:
        """One line for a person."""
        if self.kind == "loop":
            return BENCHES[self.name.removeprefix("loop/")].title
        size = f"{self.size // 1024} KiB"
        connections = f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"
        idle = f" beside {self.idle:,} idle ones" if self.idle else ""
        return f"echo, {self.style}, {size}, {connections}{idle}"

    def contenders(self) -> tuple[str, ...]:
        """Who can run this case.

        The bare servers have no styles: they stand beside `protocol`, the nearest.
        """
        if self.kind == "loop":
            return LOOPS
        fits_select = self.connections + self.idle < FD_SETSIZE - 16
        loops = tuple(name for name in LOOPS if fits_select or name != "proact-select")
        return loops + BARE if self.style == "protocol" else loops


def echo(style: str, size: str, connections: int, idle: int = 0) -> Case:
    """An echo case, named after its settings."""
    name = f"echo/{style}/{size}/{connections}" + (f"+{idle}idle" if idle else "")
    return Case(name, "echo", style, SIZES[size], connections, idle)


LOOP_CASES = tuple(Case(f"loop/{name}", "loop") for name in BENCHES)

FULL = (
    *(echo(style, size, n) for style in STYLES for size in SIZES for n in CONNECTIONS),
    echo("protocol", "1KiB", 50, idle=10_000),
    *LOOP_CASES,
)

# What `make bench` runs in about ten minutes on two cores: every style at the middle of the range, and both
# of its ends for `protocol`.
DEFAULT = (
    echo("protocol", "1KiB", 1),
    echo("protocol", "1KiB", 100),
    echo("protocol", "1KiB", 1000),
    echo("protocol", "64KiB", 100),
    echo("buffered", "64KiB", 100),
    echo("streams", "1KiB", 100),
    echo("sock", "1KiB", 100),
    *LOOP_CASES,
)
