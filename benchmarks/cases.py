"""Owns: the cases that are measured, their names, and which of them each mode runs.

A case's name is its path in `--only`, in the results and in docs/performance.md: `echo/protocol/1KiB/100`,
`http/uvicorn/10KiB`, `loop/call_soon_chain`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks import programs, web, wrk
from benchmarks.contenders import BARE, CORE, LOOPS, SPINNING, STACKED
from benchmarks.micro import BENCHES

STYLES = ("protocol", "pieces", "writelines", "buffered", "streams", "sock")
SIZES = {"1KiB": 1024, "64KiB": 65536}
CONNECTIONS = (1, 100, 1000)
FD_SETSIZE = 1024
"""select(2) can't watch file descriptors from this number on."""
UNITS = {"echo": "messages", "http": "requests", "idle": "connections", "start": "starts"}
PRIMARY = {"idle": "memory", "start": "cpu_us"}
STARTS = {
    "process": "a process: import, an empty coroutine, the end",
    "loop": "a loop made, an empty coroutine on it, the loop closed",
}
TITLES = {"tls": "TLS", "unix": "Unix socket", "udp": "UDP"}


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    `kind` is "echo" (server and load, two processes), "http" (a real HTTP server under wrk), "idle" (a server
    that keeps connections), "start" (imports and first loops) or "loop" (one process, no network). `churn`:
    each message has its own connection. `loops`: the contenders that take part, if they can.
    """

    name: str
    kind: str
    style: str = ""
    size: int = 0
    connections: int = 0
    idle: int = 0
    churn: bool = False
    body: str = ""
    loops: tuple[str, ...] = LOOPS

    @property
    def unit(self) -> str:
        """The unit of its rate."""
        return UNITS.get(self.kind) or BENCHES[self.name.removeprefix("loop/")].unit

    @property
    def primary(self) -> str:
        """The figure that decides: the rate, or the CPU time if the load may limit the rate.

        Connecting takes more of the load than of the server.
        """
        return "cpu_us" if self.style == "tls" or self.churn else PRIMARY.get(self.kind, "rate")

    @property
    def title(self) -> str:
        """One line for a person."""
        if self.kind == "loop":
            return BENCHES[self.name.removeprefix("loop/")].title
        if self.kind == "start":
            return STARTS[self.style]
        if self.kind == "idle":
            return f"{self.idle:,} idle connections"
        connections = f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"
        if self.kind == "http":
            return f"{self.style}, {self.body.replace('KiB', ' KiB')}, {connections}"
        if self.churn:
            return f"connect, echo {self.size // 1024} KiB once, close, {connections} at a time"
        idle = f" beside {self.idle:,} idle ones" if self.idle else ""
        return f"echo, {TITLES.get(self.style, self.style)}, {self.size // 1024} KiB, {connections}{idle}"

    def contenders(self) -> tuple[str, ...]:
        """The contenders that can run this case.

        The bare servers have no styles: they run beside `protocol`, the most similar one. aiofastnet is about
        TLS, spinning about single connections.
        """
        fits_select = self.connections + self.idle < FD_SETSIZE - 16
        loops = tuple(name for name in self.loops if fits_select or name != "proact-select")
        if self.style == "tls":
            return loops + STACKED
        if self.connections == 1:
            loops += SPINNING
        return loops + BARE if self.style == "protocol" and not self.churn else loops

    def missing(self) -> str:
        """What this machine lacks for the case, and how to install it; usually empty."""
        packages = {
            "http": lambda: web.missing(self.style),
            "loop": lambda: programs.missing(self.name.removeprefix("loop/")),
        }
        if lacks := packages.get(self.kind, list)():
            return f"not installed here: {', '.join(lacks)}; make bench installs what it needs"
        return wrk.INSTALL if self.kind == "http" and wrk.missing() else ""


def echo(style: str, size: str, connections: int, idle: int = 0) -> Case:
    """An echo case, named after its settings."""
    name = f"echo/{style}/{size}/{connections}" + (f"+{idle}idle" if idle else "")
    return Case(name, "echo", style, SIZES[size], connections, idle)


def http(server: str, body: str) -> Case:
    """An HTTP case: 64 connections that are kept alive."""
    return Case(f"http/{server}/{body}", "http", server, connections=64, body=body)


def core(case: Case) -> Case:
    """The case without poll and select."""
    return replace(case, loops=CORE)


START_CASES = tuple(Case(f"start/{style}", "start", style) for style in STARTS)
LOOP_CASES = tuple(Case(f"loop/{name}", "loop") for name in BENCHES)

# Other carriers than TCP, real servers, and the cost of connections.
WIDER = (
    echo("tls", "1KiB", 100),
    echo("tls", "64KiB", 10),
    echo("unix", "1KiB", 100),
    echo("udp", "1KiB", 50),
    Case("churn/1KiB/50", "echo", "protocol", 1024, 50, churn=True),
    http("uvicorn", "plaintext"),
    http("uvicorn", "10KiB"),
    http("aiohttp", "plaintext"),
    Case("idle/10000", "idle", "slim", idle=10_000),
    echo("protocol", "1KiB", 50, idle=10_000),
)

FULL = (
    *(echo(style, size, n) for style in STYLES for size in SIZES for n in CONNECTIONS),
    *WIDER,
    *LOOP_CASES,
    *START_CASES,
)

# The cases of `make bench`, about fifteen minutes on two cores: every style at the middle of the range, and
# both ends of the range for `protocol`; every engine if the case is about engines.
DEFAULT = (
    echo("protocol", "1KiB", 1),
    echo("protocol", "1KiB", 100),
    echo("protocol", "1KiB", 1000),
    *map(
        core,
        (
            echo("protocol", "64KiB", 100),
            echo("buffered", "64KiB", 100),
            echo("pieces", "1KiB", 100),
            echo("writelines", "1KiB", 100),
            echo("streams", "1KiB", 100),
            echo("sock", "1KiB", 100),
            *WIDER,
            *LOOP_CASES,
            *START_CASES,
        ),
    ),
)
