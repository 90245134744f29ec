"""Owns: the benches within one process, each in its own: `python -m benchmarks.micro '{"bench": ...}'`.
They are of a loop without any network; those of programs are in programs.py.

Each bench is a coroutine that does one pass of its work and returns the number of its operations. A pass is
repeated until the time is up; the first one warms up and does not count.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import children, contenders, programs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BATCH = 10_000
SLEEPS = 20_000
SPAWNS = 20


def nothing() -> None:
    """The cheapest callback."""


async def call_soon_chain() -> int:
    """Each callback schedules the next one, so each takes a turn of the loop."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = 5 * BATCH

    def step() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done
    return 5 * BATCH


async def call_soon_batch() -> int:
    """All callbacks are scheduled, then all run in one turn."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    for _ in range(BATCH):
        loop.call_soon(nothing)
    loop.call_soon(done.set_result, None)
    await done
    return BATCH


async def call_soon_threadsafe() -> int:
    """Another thread schedules, the loop runs; both are on one core, so they also take turns at the GIL."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def schedule() -> None:
        for _ in range(BATCH):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=schedule)
    thread.start()
    await done
    thread.join()
    return BATCH


async def timers_cancelled() -> int:
    """Typical timeouts: set, and cancelled before they are due."""
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(30 + index * 1e-3, nothing) for index in range(BATCH)]
    for timer in timers:
        timer.cancel()
    await asyncio.sleep(0)
    return BATCH


async def sleeps() -> int:
    """20,000 sleeps at once, due within 10 ms: the work takes longer, so the loop is always behind."""
    await asyncio.gather(*(asyncio.sleep(index % 100 * 1e-4) for index in range(SLEEPS)))
    return SLEEPS


async def tasks() -> int:
    """Tasks that end at once, awaited one by one."""
    loop = asyncio.get_running_loop()

    async def trivial() -> None:
        pass

    for task in [loop.create_task(trivial()) for _ in range(BATCH)]:
        await task
    return BATCH


async def spawn() -> int:
    """The smallest program, started and awaited, one after another."""
    for _ in range(SPAWNS):
        process = await asyncio.create_subprocess_exec("/bin/true")
        if await process.wait() != 0:
            raise RuntimeError("/bin/true failed")
    return SPAWNS


async def spawn_pipe() -> int:
    """The smallest program, with its output through a pipe."""
    for _ in range(SPAWNS):
        process = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if output != b"hello\n":
            raise RuntimeError(f"/bin/echo said {output!r}")
    return SPAWNS


@dataclass(frozen=True)
class Bench:
    """One bench: its pass, the name of its operations, and a title for people."""

    one_pass: Callable[[], Coroutine[Any, Any, int]]
    unit: str
    title: str


BENCHES = {
    "call_soon_chain": Bench(call_soon_chain, "callbacks", "call_soon, a chain: each schedules the next"),
    "call_soon_batch": Bench(call_soon_batch, "callbacks", f"call_soon, {BATCH:,} at a time"),
    "call_soon_threadsafe": Bench(
        call_soon_threadsafe, "callbacks", "call_soon_threadsafe, from another thread"
    ),
    "timers_cancelled": Bench(timers_cancelled, "timers", "call_later and cancel"),
    "sleeps": Bench(sleeps, "sleeps", f"asyncio.sleep, {SLEEPS:,} at once"),
    "tasks": Bench(tasks, "tasks", "create_task of a trivial coroutine"),
    "spawn": Bench(spawn, "processes", "create_subprocess_exec of /bin/true and wait"),
    "spawn_pipe": Bench(spawn_pipe, "processes", "create_subprocess_exec of /bin/echo, its output read"),
    "requests": Bench(programs.requests, "requests", "a client's requests of 1 KiB, 16 connections"),
    "websockets": Bench(
        programs.websockets, "messages", "websockets, echo of 1 KiB, both ends, 16 connections"
    ),
    "grpc": Bench(programs.grpc, "calls", "grpclib, calls with 1 KiB, both ends, 16 connections"),
}


def run(contender: str, bench: str, duration: float) -> dict[str, Any]:
    """Repeat passes on this contender's loop for `duration` seconds: operations, wall and CPU seconds."""
    one_pass = BENCHES[bench].one_pass
    loop = contenders.new_loop(contender)
    asyncio.set_event_loop(loop)

    async def measure() -> dict[str, Any]:
        await one_pass()
        gc.collect()
        done = 0
        cpu = time.process_time()
        start = time.perf_counter()
        while (seconds := time.perf_counter() - start) < duration or not done:
            done += await one_pass()
        result = {"operations": done, "seconds": seconds, "cpu_seconds": time.process_time() - cpu}
        await programs.close()
        return result

    result = loop.run_until_complete(measure())
    loop.close()
    return result


def main() -> None:
    settings = children.begin(children.SERVER_CORE)
    children.say(run(settings["contender"], settings["bench"], settings["duration"]))


if __name__ == "__main__":
    main()
