"""Owns: the memory of an idle connection in user space, as a slope: `python -m benchmarks.slope`.

A fresh server for each size holds so many connections, each served once, and its resident memory is read. The
line through the sizes tells what one connection costs, without what a server has anyway. The object of the
protocol is the user's, and is taken off.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from benchmarks import cases, contenders, idle, million, runner, servers

SIZES = (2_000, 8_000, 18_000)
SHOWN = ("proact-io_uring", "proact-epoll", "asyncio", "uvloop", "rloop")


def resident(contender: str, connections: int) -> float:
    """The resident memory of a fresh server with so many connections, in bytes. Raises ChildError."""
    case = cases.Case(f"idle/{connections}", "idle", "slim", idle=connections)
    return runner.run_idle(case, contender, runner.Settings(rounds=1, duration=0.2, warmup=0.0))["resident"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slope", description="Measure the memory of an idle connection."
    )
    parser.add_argument("--contenders", metavar="A,B", default=",".join(SHOWN))
    parser.add_argument("--sizes", metavar="N,N,N", default=",".join(map(str, SIZES)))
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    sizes = [int(size) // idle.BATCH * idle.BATCH for size in arguments.sizes.split(",")]
    if million.per_process(max(sizes)) < max(sizes):
        raise SystemExit("a process may not have so many file descriptors (RLIMIT_NOFILE)")
    slopes: dict[str, float] = {}
    for name in arguments.contenders.split(","):
        if name not in contenders.ALL or contenders.missing(name):
            print(f"not known or not installed here, left out: {name}", file=sys.stderr)
            continue
        found: list[float] = []
        for _ in range(arguments.rounds):
            memory = [resident(name, size) for size in sizes]
            found.append(statistics.linear_regression(sizes, memory).slope - servers.SLIM_BYTES)
            print(
                f"  {name:16} "
                + "  ".join(f"{size:,}: {m / 2**20:,.1f} MiB" for size, m in zip(sizes, memory, strict=True)),
                file=sys.stderr,
            )
        slopes[name] = statistics.median(found)
    base = slopes.get(contenders.BASELINE)
    for name, each in slopes.items():
        print(
            f"{name:16} {each:8,.0f} B each"
            + (f"  {each / base:5.2f} x {contenders.BASELINE}" if base else "")
        )


if __name__ == "__main__":
    main()
