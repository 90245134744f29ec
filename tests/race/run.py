"""Rounds: in each, a new loop runs in slices, in this thread and in others, while threads call at random."""

from __future__ import annotations

import asyncio
import faulthandler
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from support import leaks, loops

from .actions import Actor
from .field import Field

PATIENCE = 30.0
"""Seconds after which a round counts as stalled; the process then ends, and shows where its threads are."""
CALLS = 30
"""Calls that a thread makes at a stretch."""


@dataclass
class Race:
    engine: str
    seconds: float
    seed: int = 1
    threads: int = 8
    progress: bool = False

    rounds: int = 0
    moves: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def run(self) -> Race:
        """Runs rounds until the time is over, or something is wrong."""
        interval = sys.getswitchinterval()
        # With a GIL, have Python change threads as often as it can. Without one this means nothing.
        sys.setswitchinterval(1e-6)
        leaks.collect()
        before, alive = leaks.open_fds(), set(threading.enumerate())
        until = time.monotonic() + self.seconds
        try:
            with leaks.Unhandled() as seen:
                while not self.rounds or (time.monotonic() < until and not self.problems):
                    faulthandler.dump_traceback_later(PATIENCE, exit=True)
                    self.round(self.seed + self.rounds, seen)
                    self.rounds += 1
                leaks.collect()
                self.problems += [f"{it.where}: {it.message}: {it.exception!r}" for it in seen.problems]
        finally:
            faulthandler.cancel_dump_traceback_later()
            sys.setswitchinterval(interval)
        self.problems += leaks.difference(before, leaks.open_fds()) + leaks.threads_left(alive)
        return self

    def round(self, seed: int, seen: leaks.Unhandled) -> None:
        rng = random.Random(seed)
        loop = loops.new_event_loop(self.engine)
        seen.watch(loop)
        closes_early = rng.random() < 0.3
        beside = loops.new_event_loop(self.engine)
        seen.watch(beside)
        running = threading.Thread(target=beside.run_forever)
        running.start()
        shared = Field(loop, beside, closes_early)
        loop.run_until_complete(shared.begin())
        over = threading.Event()
        rested = threading.Event()
        counts: list[Counter[str]] = []

        def act(number: int, rng: random.Random) -> None:
            actor = Actor(shared, number, rng, lambda: loops.new_event_loop(self.engine))
            count: Counter[str] = Counter()
            # In slices of its own, so that the loop can keep up.
            while not over.is_set():
                for _ in range(CALLS):
                    count[actor.act()] += 1
                rested.wait(0.01)
            counts.append(count)

        acting = [
            threading.Thread(target=act, args=(number, random.Random(rng.random())))
            for number in range(self.threads)
        ]
        for thread in acting:
            thread.start()
        for _ in range(rng.randrange(5, 15)):
            self.slice(loop, shared, elsewhere=rng.random() < 0.3)
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.003)  # nobody runs the loop
        if closes_early:
            self.finish(loop, shared)
            loop.close()
        over.set()
        rested.set()
        for thread in acting:
            thread.join()
        if not closes_early:
            self.finish(loop, shared)
            loop.close()
        # What was ended there still has to be told.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), beside).result()
        beside.call_soon_threadsafe(beside.stop)
        running.join()
        beside.close()
        shared.check()
        self.moves += shared.moves
        self.problems += [
            f"{self.engine} seed {seed}: {problem}" for problem in dict.fromkeys(shared.problems)
        ]
        for count in counts:
            self.calls += count
        if self.progress:
            print(f"  {self.engine} seed {seed}: {sum(map(Counter.total, counts))} calls", flush=True)

    def slice(self, loop: Any, shared: Field, elsewhere: bool) -> None:
        """Runs the loop for a moment, here or in another thread."""

        def run() -> None:
            # A call of another thread may be under way; the loop waits for it.
            loop.run_until_complete(shared.work())

        if elsewhere:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        else:
            run()

    def finish(self, loop: Any, shared: Field) -> None:
        loop.run_until_complete(shared.end())
        loop.run_until_complete(asyncio.sleep(0))
