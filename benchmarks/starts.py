"""Owns: how long a start takes: `python -m benchmarks.starts '{"style": ...}'`.

`process`: a Python process that imports the loop's package, runs a coroutine that does nothing, and ends. The
process of asyncio does the same with `import asyncio; asyncio.run(noop())`. `loop`: within one process, a
loop is made, runs such a coroutine, and is closed, again and again; on io_uring each has a ring of its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import children, contenders

if TYPE_CHECKING:
    from collections.abc import Callable

NOOP = "async def noop(): pass\n"
LOOPS = 20
"""How many loops one pass makes."""


async def noop() -> None:
    """What a new loop runs."""


def program(contender: str) -> str:
    """The smallest program on this contender, as a user would write it."""
    if contender == "asyncio":
        return f"import asyncio\n{NOOP}asyncio.run(noop())"
    if contender == contenders.CHOSEN:
        return f"import proact\n{NOOP}proact.run(noop())"
    if contender.startswith("proact-"):
        engine = contender.removeprefix("proact-")
        return f"import proact\n{NOOP}proact.run(noop(), engine={engine!r})"
    return (
        f"import asyncio, {contender}\n{NOOP}"
        f"with asyncio.Runner(loop_factory={contender}.new_event_loop) as runner: runner.run(noop())"
    )


def of_processes(contender: str) -> Callable[[], int]:
    """One pass starts one process."""
    command = [sys.executable, "-c", program(contender)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}

    def one_pass() -> int:
        subprocess.run(command, cwd=children.ROOT, env=environment, check=True, stdin=subprocess.DEVNULL)
        return 1

    return one_pass


def of_loops(contender: str) -> Callable[[], int]:
    """One pass makes several loops, one after the other."""

    def one_pass() -> int:
        for _ in range(LOOPS):
            with asyncio.Runner(loop_factory=lambda: contenders.new_loop(contender)) as runner:
                runner.run(noop())
        return LOOPS

    return one_pass


STYLES = {"process": of_processes, "loop": of_loops}


def cpu_seconds(style: str) -> float:
    """The CPU time of what is measured: the ended children, or this process."""
    if style == "loop":
        return time.process_time()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(contender: str, style: str, duration: float) -> dict[str, Any]:
    """Repeat passes for `duration` seconds: starts, wall and CPU seconds. The first pass does not count."""
    one_pass = STYLES[style](contender)
    one_pass()
    done = 0
    cpu, start = cpu_seconds(style), time.perf_counter()
    while (seconds := time.perf_counter() - start) < duration or not done:
        done += one_pass()
    return {"operations": done, "seconds": seconds, "cpu_seconds": cpu_seconds(style) - cpu}


def main() -> None:
    settings = children.begin(children.SERVER_CORE)
    children.say(run(settings["contender"], settings["style"], settings["duration"]))


if __name__ == "__main__":
    main()
