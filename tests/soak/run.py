"""One loop under load: phases of work, and between them a calm in which all figures must be as they began."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from support import leaks, loops

from . import gauges
from .activities import TABLE
from .world import World

PATIENCE = 10.0
"""Seconds after which a round counts as stalled, and a calm as missing."""
CANCELLED = 0.15
"""The share of rounds that are cancelled halfway."""
LINE = 2.0
"""Seconds between two lines of progress."""


@dataclass
class Soak:
    engine: str
    seconds: float
    seed: int = 1
    width: int = 24
    phases: int = 8
    progress: bool = False
    only: str = ""

    rounds: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    in_flight_max: int = 0
    problems: list[str] = field(default_factory=list)
    samples: list[dict[str, int]] = field(default_factory=list)

    def run(self) -> Soak:
        """Soaks one loop from making to closing it; `problems` lists what went wrong."""
        faulthandler.dump_traceback_later(self.seconds * 1.5 + 4 * PATIENCE, exit=True)
        leaks.collect()
        before, threads = leaks.open_fds(), set(threading.enumerate())
        try:
            with leaks.Unhandled() as seen:
                self._on_a_loop(seen)
                leaks.collect()
                for problem in seen.problems:
                    self.problems.append(f"{problem.where}: {problem.message}: {problem.exception!r}")
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.problems += leaks.difference(before, leaks.open_fds())
        self.problems += leaks.threads_left(threads)
        return self

    def _on_a_loop(self, seen: leaks.Unhandled) -> None:
        loop: Any = loops.new_event_loop(self.engine)
        seen.watch(loop)
        try:
            loop.run_until_complete(self._main(loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loops.settle(loop)
            if left := loops.in_flight(loop):
                self.problems.append(f"{left} ops in flight at the end")
        finally:
            loop.close()

    async def _main(self, loop: Any) -> None:
        async with World(loop) as world, self._telling(loop):
            table = {name: row for name, row in TABLE.items() if self.only in name}
            # Run each once, so that everything that is imported or made only once exists before the counting.
            for _, activity in table.values():
                await activity(world, random.Random(self.seed))
            await loop.run_in_executor(None, time.sleep, 0)
            began = gauges.counts(loop)
            for phase in range(self.phases):
                until = loop.time() + self.seconds / self.phases
                seeds = (f"{self.seed}/{phase}/{number}" for number in range(self.width))
                await asyncio.gather(*(self._work(world, table, random.Random(s), until) for s in seeds))
                await self._calm(loop, began, phase)
                if self.problems:
                    break
        # The memory after the first phase, which warms up, is the beginning.
        self.problems += gauges.trends(self.samples[1:])

    async def _work(self, world: World, table: Any, rng: random.Random, until: float) -> None:
        names, shares = list(table), [share for share, _ in table.values()]
        while world.loop.time() < until and not self.problems:
            (name,) = rng.choices(names, shares)
            round_ = random.Random(rng.random())
            task = world.loop.create_task(table[name][1](world, round_))
            cancels = rng.random() < CANCELLED
            delay = rng.choice((0, 0.0005, 0.005, 0.02))
            await asyncio.wait([task], timeout=delay if cancels else PATIENCE)
            if not task.done():
                if not cancels:
                    self.problems.append(f"{name} stalled: {task!r}")
                self.cancelled += cancels
                task.cancel()
                await asyncio.wait([task], timeout=PATIENCE)
                if not task.done():
                    self.problems.append(f"{name} can't be cancelled: {task!r}")
                    return
            self.rounds[name] += 1
            if not task.cancelled() and (error := task.exception()):
                at = error.__traceback__
                while at is not None and at.tb_next is not None:
                    at = at.tb_next
                where = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at else "?"
                self.problems.append(f"{name}: {error!r} ({where})")

    async def _calm(self, loop: Any, began: dict[str, int], phase: int) -> None:
        deadline = loop.time() + PATIENCE
        while True:
            # Closing handshakes and cancelled ops take some turns; collecting garbage closes its fds.
            await asyncio.sleep(0.02)
            leaks.collect()
            now = gauges.counts(loop)
            left = {kind: (began[kind], now[kind]) for kind in began if now[kind] > began[kind]}
            if not left:
                break
            if loop.time() > deadline:
                self.problems.append(f"left after phase {phase} (before, now): {left}")
                break
        self.samples.append(gauges.memory())

    @contextlib.asynccontextmanager
    async def _telling(self, loop: Any) -> AsyncIterator[None]:
        task = loop.create_task(self._tell(loop))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _tell(self, loop: Any) -> None:
        begun = loop.time()
        last = 0
        while True:
            await asyncio.sleep(min(LINE, 0.1 + self.seconds / 10))
            self.in_flight_max = max(self.in_flight_max, loops.in_flight(loop) or 0)
            if not self.progress:
                continue
            passed, total = loop.time() - begun, self.rounds.total()
            done = min(1.0, passed / self.seconds)
            bar = "█" * round(done * 20)
            print(
                f"{self.engine:8} {bar:░<20} {max(0, self.seconds - passed):4.0f} s left  "
                f"{(total - last) / LINE:6.0f} rounds/s  {self.cancelled} cancelled  "
                f"{loops.in_flight(loop) or 0} in flight  {gauges.resident() >> 20} MiB  "
                f"{len(self.problems)} problems",
                end="\r" if sys.stderr.isatty() else "\n",
                file=sys.stderr,
                flush=True,
            )
            last = total

    def report(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "seconds": self.seconds,
            "seed": self.seed,
            "rounds": dict(sorted(self.rounds.items())),
            "cancelled": self.cancelled,
            "in_flight_max": self.in_flight_max,
            "memory": self.samples,
            "problems": self.problems,
        }
