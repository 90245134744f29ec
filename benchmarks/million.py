"""Owns: as many connections as fit into this machine's memory, up to a million: `make million`, or `python
-m benchmarks.million --connections 100000 --contenders proact-epoll,uvloop`.

One server process holds one end of all of them, and a few client processes the other, as bare file
descriptors. A client connects from addresses 127.0.0.2 and up, because one address has only so many ports
towards a server. Every connection is served once when it is opened. The first thousand of them echo for a
few seconds when they are alone, and again when all the others are there: that shows whether idle
connections cost the busy ones anything. A run ends by itself: when all are open, when memory gets short,
or when its time is up.
"""

from __future__ import annotations

import argparse
import array
import datetime
import json
import os
import re
import resource
import select
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import children, contenders, idle, machine

if TYPE_CHECKING:
    import subprocess

RESULTS = children.ROOT / "benchmarks" / "results" / "million"
SHOWN = ("proact-io_uring", "proact-epoll", "uvloop")
BUSY = 1000
"""The connections that echo."""
ECHO_SECONDS = 3.0
ECHO_SIZE = 64
PER_CLIENT = 250_000
SPARE_FDS = 500
RESERVE = 1536 << 20
"""The memory that stays free, in bytes: what is missing after that is taken from others."""
LIMIT = 900.0
"""Seconds that one contender may take."""
REPORT_EVERY = 50_000
STYLE = "slim"


def available() -> int:
    """The memory that programs can still have without swapping, in bytes."""
    return idle.field("/proc/meminfo", "MemAvailable")


def number(path: str) -> int:
    """The first number in a file of /proc/sys; a large one if this kernel has no such file."""
    try:
        match = re.search(r"\d+", Path(path).read_text())
    except OSError:
        return 1 << 40
    return int(match[0]) if match else 1 << 40


def allowed(wanted: int) -> tuple[int, str]:
    """How many connections the limits of this machine permit, and which limit decides."""
    ceiling = number("/proc/sys/fs/nr_open")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = min(ceiling, wanted + SPARE_FDS)
    if raised > hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, raised))
        except (OSError, ValueError):
            raised = hard
    # Both ends are open files. A connection may be tracked, and needs a port of its own for each address.
    limits = {
        "wanted": wanted,
        "RLIMIT_NOFILE, fs.nr_open": raised - SPARE_FDS,
        "fs.file-max": number("/proc/sys/fs/file-max") // 2 - 10_000,
        "source addresses": 250 * idle.PER_SOURCE,
    }
    if Path("/proc/net/nf_conntrack").exists() and number("/proc/sys/net/netfilter/nf_conntrack_count") > 0:
        limits["net.netfilter.nf_conntrack_max"] = number("/proc/sys/net/netfilter/nf_conntrack_max") - 1000
    name = min(limits, key=lambda name: limits[name])
    return max(limits[name], 0), name


# In a client process.


def open_share(settings: dict[str, Any]) -> array.array[int]:
    """Open this client's connections and report their number now and then."""
    held = array.array("i")
    first, wanted = settings["first"], settings["wanted"]
    ends = time.monotonic() + settings["seconds"]
    while len(held) < wanted and time.monotonic() < ends and available() > RESERVE:
        held.extend(sock.detach() for sock in idle.open_batch(settings["port"], first + len(held)))
        if len(held) % REPORT_EVERY < idle.BATCH:
            children.say({"held": len(held), "complete": False})
    children.say({"held": len(held), "complete": True})
    return held


def echo(fds: array.array[int], seconds: float) -> dict[str, float]:
    """Echo on all of them for so long: each sends its next message when the last one is back."""
    message = bytes(range(ECHO_SIZE))
    began = dict.fromkeys(fds, 0.0)
    times: list[float] = []
    now = time.perf_counter
    with select.epoll() as poll:
        for fd in fds:
            poll.register(fd, select.EPOLLIN)
            began[fd] = now()
            os.write(fd, message)
        # The first second warms up.
        opens, ends = now() + 1.0, now() + 1.0 + seconds
        left = len(fds)
        while left:
            for fd, _ in poll.poll(10.0):
                if os.read(fd, ECHO_SIZE + 1) != message:
                    raise OSError("an echo is not what was sent")
                at = now()
                if opens <= at < ends:
                    times.append(at - began[fd])
                if at < ends:
                    began[fd] = at
                    os.write(fd, message)
                else:
                    left -= 1
    times.sort()
    return {
        "rate": len(times) / seconds,
        "p50_us": times[len(times) // 2] * 1e6,
        "p99_us": times[int(len(times) * 0.99)] * 1e6,
        "p99.9_us": times[int(len(times) * 0.999)] * 1e6,
    }


def client(settings: dict[str, Any]) -> None:
    """Open a share of the connections and hold them; echo for each line on standard input."""
    fds = open_share(settings)
    for _ in sys.stdin:
        children.say(echo(fds[:BUSY], ECHO_SECONDS))
    # The kernel closes them when the process ends.
    os._exit(0)


# In the process that controls the others.


class Clients:
    """The client processes of one server."""

    def __init__(self, stack: ExitStack, port: int, deadline: float) -> None:
        self.stack, self.port, self.deadline = stack, port, deadline
        self.held = 0
        self.first: subprocess.Popen[bytes] | None = None
        self.pids: list[int] = []

    def open(self, wanted: int) -> bool:
        """One more client process opens this many. Whether it could."""
        settings = {
            "port": self.port,
            "first": self.held,
            "wanted": wanted,
            "seconds": max(0.0, self.deadline - time.monotonic()),
            "role": "client",
        }
        process = self.stack.enter_context(children.child("benchmarks.million", settings, talks=True))
        self.first = self.first or process
        self.pids.append(process.pid)
        while True:
            report = children.hear(process, 60.0)
            if report["complete"]:
                self.held += report["held"]
                return bool(report["held"] >= wanted)
            print(f"  {self.held + report['held']:,} open, {available() >> 20:,} MiB left", file=sys.stderr)

    def echo(self) -> dict[str, float]:
        """Have the first thousand echo."""
        assert self.first is not None
        assert self.first.stdin is not None
        self.first.stdin.write(b"echo\n")
        self.first.stdin.flush()
        report: dict[str, float] = children.hear(self.first, ECHO_SECONDS + 60.0)
        return report


def run(contender: str, wanted: int) -> dict[str, Any]:
    """One server: open, echo, measure. Raises ChildError if a process fails."""
    deadline = time.monotonic() + LIMIT
    with ExitStack() as stack:
        served = {"contender": contender, "style": STYLE, "cold_malloc": False}
        server = stack.enter_context(children.child("benchmarks.servers", served))
        where = children.hear(server, 20.0)
        clients = Clients(stack, where["port"], deadline)
        busy = min(BUSY, wanted)
        clients.open(busy)
        few = clients.echo()
        memory = {clients.held: idle.resident(server.pid)}
        slab, began, cpu = (
            idle.field("/proc/meminfo", "Slab"),
            time.monotonic(),
            children.cpu_seconds(server.pid),
        )
        complete = True
        while complete and clients.held < wanted:
            # In four steps, whose sizes show whether the slope stays the same.
            share = min(wanted - clients.held, PER_CLIENT, max(wanted // 4, busy))
            complete = clients.open(share)
            memory[clients.held] = idle.resident(server.pid)
        seconds, cpu = time.monotonic() - began, children.cpu_seconds(server.pid) - cpu
        kernel = idle.field("/proc/meminfo", "Slab") - slab
        many = clients.echo()
        opened = clients.held - busy
        idle_cpu, idle_began = children.cpu_seconds(server.pid), time.monotonic()
        time.sleep(2.0)
        idle_cpu = (children.cpu_seconds(server.pid) - idle_cpu) / (time.monotonic() - idle_began)
        return {
            "contender": contender,
            "connections": clients.held,
            "complete": complete,
            "few": few,
            "many": many,
            "resident": memory,
            "bytes_each": slope(memory) - where["protocol_bytes"],
            "kernel_bytes_each": kernel / opened if opened else 0.0,
            "clients_resident": sum(idle.resident(pid) for pid in clients.pids),
            "opening_rate": opened / seconds,
            "opening_cpu_us": cpu / opened * 1e6 if opened else 0.0,
            "idle_cpu": idle_cpu,
            "available_after": available(),
        }


def slope(memory: dict[int, int]) -> float:
    """Bytes a connection: the line through the sizes."""
    if len(memory) < 2:
        return 0.0
    return statistics.linear_regression(list(memory), list(memory.values())).slope


def latency(echoed: dict[str, float]) -> str:
    """The figures of one echo."""
    return f"{echoed['rate']:,.0f}/s, p50 {echoed['p50_us']:,.0f} µs, p99 {echoed['p99_us']:,.0f} µs"


def as_text(result: dict[str, Any]) -> str:
    """One contender, for a person."""
    few, many = result["few"], result["many"]
    each = result["bytes_each"] + result["kernel_bytes_each"]
    needed = each * 1_000_000 / 2**30
    return (
        f"{result['contender']}: {result['connections']:,} connections"
        f"{'' if result['complete'] else ' (memory or time was short)'}\n"
        f"  memory each: {result['bytes_each']:,.0f} B in the server, {result['kernel_bytes_each']:,.0f} B in"
        f" the kernel for both ends; a million need {needed:.1f} GiB\n"
        f"  opened at {result['opening_rate']:,.0f}/s, {result['opening_cpu_us']:.1f} µs of the server's CPU"
        f" each; idle: {result['idle_cpu']:.1%} of a core\n"
        f"  echo on {BUSY:,}, alone: {latency(few)}\n"
        f"  beside all: {latency(many)} ({many['p99_us'] / few['p99_us']:.2f} x)"
    )


def control() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.million", description="Hold as many connections as fit, up to a million."
    )
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--contenders", metavar="A,B", default=",".join(SHOWN))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results to this file instead")
    arguments = parser.parse_args()
    if arguments.connections < 1:
        parser.error("--connections must be at least 1")
    wanted, reason = allowed(arguments.connections)
    if wanted < arguments.connections:
        print(f"note: {wanted:,} connections at most, because of {reason}", file=sys.stderr)
    now = datetime.datetime.now(datetime.UTC)
    results: dict[str, Any] = {
        "created": now.isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "wanted": arguments.connections,
        "limit": reason,
        "runs": [],
    }
    for name in arguments.contenders.split(","):
        if name not in contenders.ALL:
            parser.error(f"no contender named {name!r}; there are {', '.join(contenders.ALL)}")
        if contenders.missing(name):
            print(f"not installed here, left out: {name}", file=sys.stderr)
            continue
        print(f"{name}: {available() >> 20:,} MiB available", file=sys.stderr)
        try:
            results["runs"].append(run(name, wanted))
        except (children.ChildError, OSError) as error:
            print(f"{name}: failed: {error}", file=sys.stderr)
            continue
        print(as_text(results["runs"][-1]), flush=True)
    target = arguments.json or RESULTS / f"{now:%Y-%m-%dT%H%M%S}-{machine.kind()}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {target}")


def main() -> None:
    # A child is started with one argument, its settings.
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        client(children.begin(children.LOAD_CORE))
    else:
        control()


if __name__ == "__main__":
    main()
