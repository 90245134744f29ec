"""Owns: the rounds. In each round of a case every contender runs once, one after another (A B C, A B C,
...), so that a machine that slows down slows down for all. Each round starts one contender later than
the one before, so no contender is always first, or always behind a certain neighbour.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import children

if TYPE_CHECKING:
    from benchmarks.cases import Case
    from benchmarks.stats import Run

START_TIMEOUT = 20.0
GIVE_UP_AFTER = 2
"""A contender that has failed so often in a case is not tried again in it."""


@dataclass(frozen=True)
class Settings:
    """How often and how long, in seconds. `cold_malloc` leaves children.warm_malloc out."""

    rounds: int
    duration: float
    warmup: float
    cold_malloc: bool = False


def run_echo(case: Case, contender: str, settings: Settings) -> dict[str, float]:
    """One server under one load."""
    served = {"contender": contender, "style": case.style, "cold_malloc": settings.cold_malloc}
    with children.child("benchmarks.servers", served) as server:
        where = children.hear(server, START_TIMEOUT)
        # Thousands of idle connections take their time to open; the timed window does not begin before.
        warmup = settings.warmup + case.connections / 5000
        request = where | {
            "pid": server.pid,
            "style": case.style,
            "churn": case.churn,
            "connections": case.connections,
            "size": case.size,
            "idle": case.idle,
            "warmup": warmup,
            "duration": settings.duration,
        }
        with children.child("benchmarks.load", request) as load:
            report = children.hear(load, START_TIMEOUT + warmup + settings.duration + 60)
        if server.poll() is not None:
            raise children.ChildError(f"the server ended with code {server.returncode}")
    return figures(report)


def figures(report: dict[str, Any]) -> dict[str, float]:
    """The figures of a load's report that are kept."""
    messages, seconds = report["messages"], report["seconds"]
    if not messages:
        raise children.ChildError("no message came back within the window")
    latency = report["latency_ns"]
    return {
        "rate": messages / seconds,
        "cpu_us": report["server_cpu_seconds"] / messages * 1e6,
        "p50_us": latency["p50"] / 1e3,
        "p99_us": latency["p99"] / 1e3,
        "p99.9_us": latency["p99.9"] / 1e3,
        "operations": messages,
        "seconds": seconds,
        "server_busy": report["server_cpu_seconds"] / seconds,
        "load_busy": report["cpu_seconds"] / seconds,
    }


def run_http(case: Case, contender: str, settings: Settings) -> dict[str, float]:
    """One HTTP server under wrk."""
    served = {"contender": contender, "server": case.style, "body": case.body}
    with children.child("benchmarks.web", served | {"cold_malloc": settings.cold_malloc}) as server:
        request = children.hear(server, START_TIMEOUT) | {
            "pid": server.pid,
            "body": case.body,
            "connections": case.connections,
            "warmup": settings.warmup,
            "duration": settings.duration,
        }
        with children.child("benchmarks.wrk", request) as load:
            report = children.hear(load, START_TIMEOUT + settings.duration + 60)
    return figures(report)


def run_idle(case: Case, contender: str, settings: Settings) -> dict[str, float]:
    """One server with thousands of connections on which nothing happens."""
    served = {"contender": contender, "style": case.style, "cold_malloc": settings.cold_malloc}
    with children.child("benchmarks.servers", served) as server:
        request = children.hear(server, START_TIMEOUT) | {
            "pid": server.pid,
            "connections": case.idle,
            "duration": settings.duration,
        }
        with children.child("benchmarks.idle", request) as load:
            report: dict[str, float] = children.hear(load, START_TIMEOUT + settings.duration + 60)
    return report


def run_loop(case: Case, contender: str, settings: Settings) -> dict[str, float]:
    """One bench in one process."""
    request = {"bench": case.name.removeprefix("loop/"), "cold_malloc": settings.cold_malloc}
    return run_alone("benchmarks.micro", request, contender, settings)


def run_start(case: Case, contender: str, settings: Settings) -> dict[str, float]:
    """Starts, one after another."""
    return run_alone("benchmarks.starts", {"style": case.style}, contender, settings)


def run_alone(module: str, what: dict[str, Any], contender: str, settings: Settings) -> dict[str, float]:
    """One process that measures itself."""
    request = what | {"contender": contender, "duration": settings.duration}
    with children.child(module, request) as process:
        report = children.hear(process, START_TIMEOUT + settings.duration + 60)
    operations, seconds = report["operations"], report["seconds"]
    return {
        "rate": operations / seconds,
        "cpu_us": report["cpu_seconds"] / operations * 1e6,
        "operations": operations,
        "seconds": seconds,
    }


MEASURES = {"echo": run_echo, "http": run_http, "idle": run_idle, "loop": run_loop, "start": run_start}


class Progress:
    """One line on standard error, rewritten as the work goes on; one line per run if that is no terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self.live = sys.stderr.isatty()

    def before(self, what: str) -> None:
        """Show what runs now. Only a terminal can replace it afterwards."""
        if self.live:
            self._write(f"\r\033[K{self._where()} {what} ...")

    def after(self, what: str, run: Run) -> None:
        """Show the outcome."""
        self.done += 1
        outcome = run.get("error") or f"{run['rate'] / 1e3:9.1f} k/s {run['cpu_us']:8.2f} µs CPU"
        self._write(
            ("\r\033[K" if self.live else "") + f"{self._where()} {what} {outcome}" + "\n" * (not self.live)
        )

    def skip(self, runs: int) -> None:
        """Count runs that will not happen."""
        self.total -= runs

    def end(self) -> None:
        """Leave the line."""
        if self.live:
            self._write("\r\033[K")

    def _where(self) -> str:
        spent = time.monotonic() - self.began
        left = f"{spent / self.done * (self.total - self.done):4.0f} s left" if self.done else "          "
        return f"[{self.done:4}/{self.total}] {left} "

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def run_case(case: Case, names: list[str], settings: Settings, progress: Progress) -> dict[str, Any]:
    """Run all rounds of one case; return its results."""
    runs: list[Run] = []
    kept = asdict(case) | {"title": case.title, "unit": case.unit, "primary": case.primary, "runs": runs}
    if missing := case.missing():
        return kept | {"missing": missing}
    failures = dict.fromkeys(names, 0)
    measure = MEASURES[case.kind]
    for number in range(settings.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if failures[name] >= GIVE_UP_AFTER:
                progress.skip(1)
                continue
            what = f"{case.name:26} {name:16} round {number + 1}"
            progress.before(what)
            run: Run = {"contender": name, "round": number}
            try:
                run |= measure(case, name, settings)
            except (children.ChildError, OSError) as error:
                failures[name] += 1
                run["error"] = str(error)
            runs.append(run)
            progress.after(what, run)
    return kept
