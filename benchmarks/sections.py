"""Owns: the sections of docs/performance.md beside its main tables: spinning, a million connections, and
what was measured on other Pythons, on another machine and in a container. Each is computed from results.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks import children, million, stats, table
from benchmarks.contenders import BASELINE, SPIN, SPINNING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE_CONNECTION = "echo/protocol/1KiB/1"

SPINS = f"""\
`proact.new_event_loop(spin={SPIN:g})`, and `spin=` of `proact.run` and of `EventLoop`: before a wait
sleeps, it asks the engine again and again, for at most so many seconds. What comes meanwhile is served
without the time that the kernel takes to put a thread to sleep and to wake it up. The price is CPU time:
the core is busy while the loop waits.

- io_uring looks at memory that it shares with the kernel, and enters the kernel only when something is
  there. (Before Linux 5.19 it has to enter for each look.) epoll, poll and select make a system call for
  each look, and poll's and select's take longer the more files they watch.
- Other threads run meanwhile: the loop has given the GIL up, as it does before it sleeps.
- The loop stops spinning by itself while it does not pay. If fewer than 8 of the last 16 spins ended with
  something to do, it sleeps at once for the next 16 waits and tries one spin again; then for 32, up to
  1,024. If another program takes its core away, or other threads keep the GIL for more than 0.1 ms, it
  sleeps at once for the next 1,024 waits.
- `loop.stats()["spin"]` counts: `spins`, how many of them `paid`, how many waits `skipped` the spin, and
  the `seconds` that all of them took.

It helps a service that answers one or a few peers at a time and has a core to spare. A loop with many
busy connections rarely waits at all, and gains nothing. Values up to 0.01 are accepted.
"""


def spinning(cases: list[dict[str, Any]]) -> Iterator[str]:
    """What spinning brings and costs."""
    yield from ("## Spinning", "", SPINS)
    case = next((case for case in cases if case["name"] == ONE_CONNECTION), None)
    names = ("proact-io_uring", SPINNING[0], "proact-epoll", SPINNING[1], BASELINE)
    rows = [
        f"| {name} | {table.quantity(p50.median)} | {table.times(ratio(case, name, 'p50_us'))} "
        f"| {table.times(ratio(case, name, 'cpu_us'))} | {busy.median:.0%} |"
        for name in names
        if case
        and (p50 := stats.figure(case["runs"], name, "p50_us"))
        and (busy := stats.figure(case["runs"], name, "server_busy"))
    ]
    if rows:
        yield f"| one connection, 1 KiB | p50 µs | p50 × {BASELINE} | CPU × {BASELINE} | core busy |"
        yield from ("|---|---:|---:|---:|---:|", *rows, "")


def ratio(case: dict[str, Any], name: str, key: str) -> stats.Spread | None:
    return stats.ratio(case["runs"], name, BASELINE, key)


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest results in a folder."""
    found = sorted(folder.glob("*.json"))
    return (
        json.loads(found[-1].read_text()) | {"source": str(found[-1].relative_to(children.ROOT))}
        if found
        else None
    )


def elsewhere(results_folder: Path) -> Iterator[str]:
    """Where containers allow no ring, on another machine, and on other Pythons."""
    for folder in sorted(path for path in results_folder.iterdir() if path.is_dir()):
        if folder.name not in ("container", OTHER) and not folder.name.startswith("python-"):
            continue
        if (results := newest(folder)) is None:
            continue
        versions = ", ".join(f"{name} {v}" for name, v in results["machine"]["versions"].items() if v)
        if folder.name == "container":
            yield from ("## In a container", "", IN_CONTAINER)
        elif folder.name == OTHER:
            yield from ("## On another machine", "", ON_ANOTHER)
        else:
            yield from (f"## On Python {folder.name.removeprefix('python-')}", "")
        yield (
            f"`{results['source']}`, {results['created'][:10]}, {results['machine']['cpu']}, "
            f"Python {results['machine']['python']}, "
            f"{versions}; "
            f"{results['settings']['rounds']} rounds, load average before: "
            f"{results['machine']['load_average_before']:.2f}."
        )
        yield ""
        for case in results["cases"]:
            yield from (f"### {case['title']}{suffix(folder.name)}", "", table.as_markdown(case), "")


OTHER = "another-machine"

ON_ANOTHER = """\
The figures above are of one machine. On this one, Python's part of a message is smaller beside the kernel's:
uvloop's echo of 1 KiB on 100 connections takes 1.15 times the CPU time of a bare server's, not 1.23. So all
loops are closer to each other. TLS, datagrams and `sendfile` had become cheaper in between (CHANGELOG.md).
"""

IN_CONTAINER = """\
Docker, containerd and Kubernetes refuse io_uring by their default seccomp profile. `python -m benchmarks
--container` measures within such a filter. `proact` is then the engine that it falls back to by itself:
epoll.
"""


def suffix(name: str) -> str:
    """What tells the headings of one section from those of another."""
    places = {"container": "in a container", OTHER: "on another machine"}
    return f" ({places.get(name, name.replace('python-', 'Python '))})"


MILLION = """\
`make million` holds as many connections as fit, both ends on this machine: one server process (several,
where a process may not have as many file descriptors: `RLIMIT_NOFILE`), and client processes that hold
bare file descriptors. Each connection is served once. Then the first 1,000 echo 64 bytes again, as they
did when they were alone. The load is written in Python and takes most of the time: compare the two
latencies, not the rates. The memory in the server is the slope through its sizes, less the protocol's
object; that of the kernel is for both ends.
"""


def of_million() -> Iterator[str]:
    """The newest run of benchmarks.million."""
    if (results := newest(million.RESULTS)) is None:
        return
    yield from ("## A million connections", "", MILLION)
    memory = results["machine"]["memory_gib"]
    yield f"`{results['source']}`, {results['created'][:10]}, {memory} GiB of memory."
    yield ""
    yield "| | connections | servers | B each | kernel B each | p99 µs alone | beside all | idle CPU |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for run in results["runs"]:
        few, many = run["few"], run["many"]
        yield (
            f"| {run['contender']} | {run['connections']:,} | {run['servers']} | {run['bytes_each']:,.0f} "
            f"| {run['kernel_bytes_each']:,.0f} | {few['p99_us']:,.0f} "
            f"| {many['p99_us']:,.0f} ({many['p99_us'] / few['p99_us']:.2f} ×) | {run['idle_cpu']:.1%} |"
        )
    yield ""
