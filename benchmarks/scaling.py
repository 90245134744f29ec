"""Owns: how far several loops, each in its own thread, use several cores: `python -m benchmarks.scaling`.

Two works, on 1 and on more threads of one process, interleaved. `call_soon`: each loop runs a chain of
callbacks. `echo`: each loop serves and loads its own socket pairs, so that the process needs no core for the
load. Reported are the rate of all threads together against that of one, and the CPU time of an operation. The
same work in as many processes, which share nothing, shows what the machine's cores allow at this moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import proact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAIRS = 50
"""Connections of each loop in `echo`."""
MESSAGE = bytes(1024)
CHAIN = 1000


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(data)


class Load(Echo):
    """Sends the next message when the last one is back whole, and counts."""

    count = 0
    pending = len(MESSAGE)

    def data_received(self, data: bytes) -> None:
        self.pending -= len(data)
        if not self.pending:
            self.count += 1
            self.pending = len(MESSAGE)
            self.write(MESSAGE)


async def echo(over: Callable[[], bool]) -> int:
    """Messages of one loop until `over`."""
    loop = asyncio.get_running_loop()
    loads = []
    transports = []
    for _ in range(PAIRS):
        for sock, factory in zip(socket.socketpair(), (Echo, Load), strict=True):
            transport, protocol = await loop.connect_accepted_socket(factory, sock)
            transports.append(transport)
            if isinstance(protocol, Load):
                protocol.write(MESSAGE)
                loads.append(protocol)
    while not over():
        await asyncio.sleep(0.01)
    count = sum(load.count for load in loads)
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)
    return count


async def call_soon(over: Callable[[], bool]) -> int:
    """Callbacks of one loop until `over`, each of which schedules the next."""
    loop = asyncio.get_running_loop()
    count = 0
    while not over():
        done = loop.create_future()
        left = CHAIN

        def step(done: asyncio.Future[None] = done) -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(step)
            else:
                done.set_result(None)

        loop.call_soon(step)
        await done
        count += CHAIN
    return count


WORKS: dict[str, Callable[[Callable[[], bool]], Awaitable[int]]] = {"call_soon": call_soon, "echo": echo}


def measure(work: str, threads: int, duration: float, engine: str) -> dict[str, float]:
    """The work on so many threads: operations a second, and CPU microseconds an operation."""
    counts = [0] * threads
    begin = threading.Barrier(threads + 1)
    ends = 0.0

    def run(index: int) -> None:
        async def main() -> None:
            begin.wait()
            counts[index] = await WORKS[work](lambda: time.monotonic() >= ends)

        proact.run(main(), engine=engine)

    ends = time.monotonic() + 3600
    team = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in team:
        thread.start()
    begin.wait()
    cpu, start = time.process_time(), time.monotonic()
    ends = start + duration
    for thread in team:
        thread.join()
    done, seconds = sum(counts), time.monotonic() - start
    return {"rate": done / seconds, "cpu_us": (time.process_time() - cpu) / done * 1e6}


def measured(work: str, threads: int, processes: int, options: argparse.Namespace) -> dict[str, float]:
    """The same in fresh processes, started together: the sum of their rates, the mean of their CPU times."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", work, str(threads)]
    command += ["--duration", str(options.duration), "--engine", options.engine]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    results = [json.loads(child.communicate()[0]) for child in children]
    return {
        "rate": sum(result["rate"] for result in results),
        "cpu_us": statistics.mean(result["cpu_us"] for result in results),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--threads", default="1,2", help="numbers of threads; the first is compared with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=1.0, help="seconds of each run")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", action="store_true", help="write the medians as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        work, threads = options.one
        print(json.dumps(measure(work, int(threads), options.duration, options.engine)))
        return
    numbers = [int(number) for number in options.threads.split(",")]
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"CPython {sys.version.split()[0]}, {'with' if gil else 'without'} the GIL", file=sys.stderr)
    runs: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for work in WORKS:
            for number in numbers:
                threads = measured(work, number, 1, options)
                runs.setdefault((work, "threads", number), []).append(threads)
                if number > 1:
                    processes = measured(work, 1, number, options)
                    runs.setdefault((work, "processes", number), []).append(processes)
    rows = []
    for (work, kind, number), row in runs.items():
        first = runs[work, "threads", numbers[0]]
        shown: dict[str, float] = {}
        for key in ("rate", "cpu_us"):
            shown[key] = statistics.median(one[key] for one in row)
            ratios = [one[key] / other[key] for one, other in zip(row, first, strict=True)]
            shown[f"{key}_times"] = statistics.median(ratios)
        rows.append({"work": work, "of": kind, "number": number, **shown})
        if not options.json:
            print(
                f"{work:10} {number:2} {kind:9} {shown['rate']:12,.0f}/s ({shown['rate_times']:.2f} x)  "
                f"{shown['cpu_us']:6.2f} us CPU each ({shown['cpu_us_times']:.2f} x)"
            )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
