"""Owns: as many connections as fit into this machine's memory, up to a million: `make million`, or `python
-m benchmarks.million --connections 100000 --contenders proact-epoll,uvloop`.

One server process holds one end of all of them (several do, if a process may not have as many file
descriptors), and a few client processes the other, as bare file
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
from dataclasses import dataclass
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


def per_process(wanted: int) -> int:
    """How many connections one process can have: each is a file descriptor. Raises the limit if it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = min(number("/proc/sys/fs/nr_open"), wanted + SPARE_FDS)
    if raised > hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, raised))
        except (OSError, ValueError):
            raised = hard
    return max(min(wanted, raised - SPARE_FDS) // idle.BATCH * idle.BATCH, idle.BATCH)


def allowed(wanted: int) -> tuple[int, str]:
    """How many connections this machine permits to all processes together, and what decides."""
    # Both ends are open files. A connection may be tracked, and needs a port of its own for each address.
    limits = {
        "what was asked for": wanted,
        "fs.file-max": number("/proc/sys/fs/file-max") // 2 - 10_000,
        "the source addresses": 250 * idle.PER_SOURCE,
    }
    if number("/proc/sys/net/netfilter/nf_conntrack_count") in range(1, 1 << 40):
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
    """A server, and the client processes that hold the other ends of its connections."""

    def __init__(self, stack: ExitStack, contender: str, offset: int, deadline: float) -> None:
        served = {"contender": contender, "style": STYLE, "cold_malloc": False}
        self.server = stack.enter_context(children.child("benchmarks.servers", served))
        where = children.hear(self.server, 60.0)
        self.stack, self.port, self.deadline = stack, where["port"], deadline
        self.protocol_bytes: int = where["protocol_bytes"]
        self.offset, self.held = offset, 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def open(self, wanted: int) -> bool:
        """One more client process opens this many. Whether it could."""
        settings = {
            "port": self.port,
            "first": self.offset + self.held,
            "wanted": wanted,
            "seconds": max(0.0, self.deadline - time.monotonic()),
            "role": "client",
        }
        process = self.stack.enter_context(children.child("benchmarks.million", settings, talks=True))
        self.processes.append(process)
        while True:
            report = children.hear(process, 60.0)
            if report["complete"]:
                self.held += report["held"]
                return bool(report["held"] >= wanted)
            count = self.offset + self.held + report["held"]
            print(f"  {count:,} open, {available() >> 20:,} MiB left", file=sys.stderr)

    def echo(self) -> dict[str, float]:
        """Have the first thousand echo."""
        first = self.processes[0]
        assert first.stdin is not None
        first.stdin.write(b"echo\n")
        first.stdin.flush()
        report: dict[str, float] = children.hear(first, ECHO_SECONDS + 60.0)
        return report


@dataclass(frozen=True)
class Plan:
    """How many connections, and how many of them one process can have open: a server, or a client."""

    wanted: int
    per_process: int


def steps(wanted: int) -> list[int]:
    """The first server opens its share in four steps, whose sizes show whether the slope stays the same."""
    first = min(BUSY, wanted)
    quarter = (wanted - first) // 4 // idle.BATCH * idle.BATCH
    return [first, quarter, quarter, quarter, wanted - first - 3 * quarter]


def run(contender: str, plan: Plan) -> dict[str, Any]:
    """Open, echo, measure. Raises ChildError if a process fails."""
    deadline = time.monotonic() + LIMIT
    with ExitStack() as stack:
        memory: dict[int, int] = {}
        servers: list[Clients] = []
        few: dict[str, float] = {}
        slab, began, held = idle.field("/proc/meminfo", "Slab"), time.monotonic(), 0
        complete = True
        while complete and held < plan.wanted:
            share = min(plan.per_process, plan.wanted - held)
            clients = Clients(stack, contender, held, deadline)
            servers.append(clients)
            for number, step in enumerate(steps(share) if held == 0 else [share]):
                complete = complete and clients.open(step)
                if held == 0:
                    memory[clients.held] = idle.resident(clients.server.pid)
                    if number == 0:
                        few = clients.echo()
                        began = time.monotonic()
            held += clients.held
        seconds = time.monotonic() - began
        kernel = idle.field("/proc/meminfo", "Slab") - slab
        many = servers[0].echo()
        pids = [clients.server.pid for clients in servers]
        idle_cpu, idle_began = sum(map(children.cpu_seconds, pids)), time.monotonic()
        time.sleep(2.0)
        idle_cpu = (sum(map(children.cpu_seconds, pids)) - idle_cpu) / (time.monotonic() - idle_began)
        return {
            "contender": contender,
            "connections": held,
            "servers": len(servers),
            "complete": complete,
            "few": few,
            "many": many,
            "resident": memory,
            "bytes_each": slope(memory) - servers[0].protocol_bytes,
            "kernel_bytes_each": kernel / held,
            "servers_resident": sum(map(idle.resident, pids)),
            "clients_resident": sum(
                idle.resident(process.pid) for each in servers for process in each.processes
            ),
            "opening_rate": held / seconds,
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
        f"{result['contender']}: {result['connections']:,} connections, {result['servers']} servers"
        f"{'' if result['complete'] else ' (memory or time was short)'}\n"
        f"  memory each: {result['bytes_each']:,.0f} B in the server, {result['kernel_bytes_each']:,.0f} B in"
        f" the kernel for both ends; a million need {needed:.1f} GiB\n"
        f"  opened at {result['opening_rate']:,.0f}/s; idle: {result['idle_cpu']:.1%} of a core\n"
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
    plan = Plan(wanted, per_process(wanted))
    if plan.per_process < wanted:
        print(
            f"note: a process may have {plan.per_process:,} connections (RLIMIT_NOFILE, fs.nr_open), so there"
            " are several servers",
            file=sys.stderr,
        )
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
            results["runs"].append(run(name, plan))
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
