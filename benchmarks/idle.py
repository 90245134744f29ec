"""Owns: connections that idle: `python -m benchmarks.idle '{"port": ...}'` opens thousands, has each
served once, and reads their cost to the server that keeps them.

Each sends one message and verifies its echo. So it has surely been served, and the memory that a loop keeps
for a connection after its first message counts, too. The cost of one connection is the growth of the server's
resident memory over the second half of them, divided by their number: by then, the server already has what it
needs anyway, such as shared buffers. `resident` is the whole resident memory at the end.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from benchmarks import children

BATCH = 250
"""The connections that are opened and served at a time: less than any backlog."""
PER_SOURCE = 5000
"""Connections from one source address: well below the ports that one has towards a server."""
SETTLE = 0.3
"""Seconds between the last message and the idle window."""
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: connect chooses the port, because it knows the other end


def field(path: str, name: str) -> int:
    """One figure of a file in /proc, in bytes; the file has it in kB."""
    match = re.search(rf"^{name}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
    if not match:
        raise OSError(f"{path} has no {name}")
    return int(match[1]) * 1024


def resident(pid: int) -> int:
    """Resident memory of a process. smaps_rollup counts pages; statm's figure is approximate."""
    return field(f"/proc/{pid}/smaps_rollup", "Rss")


def connect(port: int, number: int) -> socket.socket:
    """Open one connection, from one of several source addresses."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
    connection.settimeout(10.0)
    connection.connect(("127.0.0.1", port))
    return connection


def serve_once(batch: list[socket.socket], number: int) -> None:
    """Send one message on each, all at once, and receive its echo. Raises OSError if an echo is wrong."""
    messages = [f"{number + index:064}".encode() for index in range(len(batch))]
    for connection, message in zip(batch, messages, strict=True):
        connection.sendall(message)
    for connection, message in zip(batch, messages, strict=True):
        if connection.recv(len(message) + 1) != message:
            raise OSError("an echo is not what was sent")


def open_batch(port: int, first: int) -> list[socket.socket]:
    """Open a batch, and have each connection served once."""
    batch = [connect(port, first + index) for index in range(BATCH)]
    serve_once(batch, first)
    return batch


def run(settings: dict[str, Any]) -> dict[str, float]:
    """Open all, wait, and report their cost per connection, without the user's protocol object."""
    pid, port, wanted = settings["pid"], settings["port"], settings["connections"]
    held = open_batch(port, 0)
    slab = field("/proc/meminfo", "Slab")
    cpu, began = children.cpu_seconds(pid), time.monotonic()
    half = 0
    while len(held) < wanted:
        held += open_batch(port, len(held))
        if not half and len(held) >= wanted // 2:
            half, then = len(held), resident(pid)
    opened = len(held) - BATCH
    seconds = time.monotonic() - began
    opening_cpu = children.cpu_seconds(pid) - cpu
    time.sleep(SETTLE)
    total, slab = resident(pid), field("/proc/meminfo", "Slab") - slab
    cpu, began = children.cpu_seconds(pid), time.monotonic()
    time.sleep(settings["duration"])
    idle_cpu, idle_seconds = children.cpu_seconds(pid) - cpu, time.monotonic() - began
    return {
        "rate": opened / seconds,
        "cpu_us": opening_cpu / opened * 1e6,
        "memory": (total - then) / (len(held) - half) - settings["protocol_bytes"],
        "resident": total,
        "kernel_memory": slab / opened,
        "idle_cpu_us": idle_cpu / idle_seconds * 1e6,
        "operations": opened,
        "seconds": seconds,
    }


def main() -> None:
    settings = children.begin(children.LOAD_CORE)
    children.say(run(settings))
    # The kernel closes the thousands of sockets when the process ends.
    os._exit(0)


if __name__ == "__main__":
    main()
