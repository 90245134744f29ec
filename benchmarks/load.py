"""Owns: the load on one server, in a separate process: `python -m benchmarks.load '{"port": ...}'`.

The load itself is written in Rust (`proact._core.echo_load`) and serves every contender; only TLS has another
one, in tls_load.py. This file adds the server's CPU time over exactly the load's timed window: a thread notes
the server's CPU clock every few milliseconds, and the ends of the window are interpolated between the notes.
"""

from __future__ import annotations

import bisect
import threading
import time
from typing import Any

from benchmarks import children, tls_load

INTERVAL = 0.004
"""Seconds between two notes. A note costs a few microseconds on the load's core, for all contenders alike."""


class CpuNotes:
    """The CPU clock of one process over time, noted from a thread while a `with` block runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.times: list[float] = []
        self.cpu: list[float] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _note(self) -> None:
        self.times.append(time.monotonic())
        self.cpu.append(children.cpu_seconds(self.pid))

    def _watch(self) -> None:
        while not self._end.wait(INTERVAL):
            self._note()

    def __enter__(self) -> CpuNotes:
        self._note()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._note()

    def at(self, moment: float) -> float:
        """CPU seconds used up to `moment` (time.monotonic()), interpolated between the notes on either
        side.
        """
        after = min(max(bisect.bisect_left(self.times, moment), 1), len(self.times) - 1)
        before = after - 1
        span = self.times[after] - self.times[before]
        share = min(max((moment - self.times[before]) / span, 0.0), 1.0) if span else 0.0
        return self.cpu[before] + share * (self.cpu[after] - self.cpu[before])


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the server; return echo_load's report with `server_cpu_seconds`."""
    if settings["style"] == "tls":
        return tls_load.run(settings)
    from proact import _core

    with CpuNotes(settings["pid"]) as notes:
        called = time.monotonic()
        report = _core.echo_load(
            settings.get("path", "127.0.0.1"),
            settings.get("port", 0),
            connections=settings["connections"],
            size=settings["size"],
            warmup=settings["warmup"],
            duration=settings["duration"],
            idle=settings["idle"],
            stall_timeout=10.0,
            transport=settings["style"] if settings["style"] in ("unix", "udp") else "tcp",
            churn=settings["churn"],
        )
    # The window opens when all are connected and warm, at the end of a turn of the load: at most one turn
    # later than this, in which the server was as busy. (When echo_load returns says less: it awaits the
    # last messages first, and looks up only every 100 ms.)
    opened = called + report["connect_seconds"] + settings["warmup"]
    report["server_cpu_seconds"] = notes.at(opened + report["seconds"]) - notes.at(opened)
    return report


def main() -> None:
    settings = children.begin(children.LOAD_CORE)
    children.say(run(settings))


if __name__ == "__main__":
    main()
