"""Owns: the instructions of one message by function, counted by valgrind.

    python -m benchmarks.instructions                        the echo of `protocol`, on proact and its peers
    python -m benchmarks.instructions --style streams --contenders proact-epoll,uvloop --functions 30
    python -m benchmarks.instructions --style green --contenders proact-epoll
    python -m benchmarks.instructions --markdown             as docs/performance/one-message.md has it

A server runs in callgrind twice, with few and with many messages. The difference is the cost of the messages
alone: start and connections are in both. Only instructions in user mode count. They vary by a few per cent
with how many messages a turn of the loop finds. They are no times: a system call is one instruction here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import children, contenders, tls_load

ROUNDS = (50, 550)
CONNECTIONS = 20
SIZE = 1024
START_TIMEOUT = 180.0
STYLE = "protocol"
# The bare io_uring server does not end in valgrind.
SHOWN = ("proact-io_uring", "proact-epoll", "uvloop", "rloop", "asyncio", "bare-epoll")
LEAST = 5.0
"""Functions with fewer instructions a message are summed up."""

_NAMED = re.compile(r"\((\d+)\)(?: (.*))?")


@dataclass
class Profile:
    """Instructions by (object file, function), and by object file."""

    functions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def less(self, other: Profile, messages: int) -> dict[tuple[str, str], float]:
        """What this has more than the other, for each message."""
        keys = self.functions.keys() | other.functions.keys()
        return {key: (self.functions[key] - other.functions[key]) / messages for key in keys}


def parse(path: Path) -> Profile:
    """Read a file of callgrind (its format: https://valgrind.org/docs/manual/cl-format.html)."""
    names: dict[str, dict[str, str]] = {"fn": {}, "ob": {}}
    profile = Profile()
    here = {"fn": "?", "ob": "?"}
    of_call = False
    for line in path.read_text(errors="replace").splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("fn", "cfn", "ob", "cob"):
            kind = key.removeprefix("c")
            match = _NAMED.fullmatch(value)
            if not match:
                continue
            if match[2] is not None:
                names[kind][match[1]] = match[2]
            if key == kind:
                here[kind] = names[kind].get(match[1], "?")
        elif line.startswith("calls="):
            # The next line is the cost of the called function, which has lines of its own.
            of_call = True
        elif line and line[0] in "0123456789+-*":
            if not of_call:
                parts = line.split()
                if len(parts) > 1:
                    profile.functions[(object_name(here["ob"]), short(here["fn"]))] += int(parts[1])
            of_call = False
    return profile


def object_name(path: str) -> str:
    """The library that an object file belongs to, as a reader calls it."""
    name = Path(path).name
    for start, shown in (
        ("python", "CPython"),
        ("libpython", "CPython"),
        ("libc.", "libc"),
        ("libc-", "libc"),
    ):
        if name.startswith(start):
            return shown
    return name.partition(".")[0] or "?"


def short(function: str) -> str:
    """A function's name without hashes, cycles and modules: of Rust's the type and the name are left."""
    function = re.sub(r"'\d+$|::h[0-9a-f]{16}$", "", function)
    function = re.sub(r"<impl (?:\w+::)*(\w+)(?:<.*?>)?>", r"\1", function)
    function = re.sub(r"<(?:\w+::)*(\w+)(?:<[^<>]*>)? as [^>]+>", r"\1", function)
    return "::".join(function.split("::")[-2:]) if " " not in function else function[:60]


def connect(port: int, style: str) -> list[socket.socket]:
    """Open all connections, with TLS if the style has it."""
    connections = [socket.create_connection(("127.0.0.1", port), timeout=60.0) for _ in range(CONNECTIONS)]
    if style != "tls":
        return connections
    context = ssl.create_default_context(cafile=tls_load.CERTIFICATES / "authority.pem")
    return [context.wrap_socket(connection, server_hostname=tls_load.NAME) for connection in connections]


def load(port: int, style: str, rounds: int) -> None:
    """Echo messages: all connections send, then each receives."""
    message = bytes(SIZE)
    connections = connect(port, style)
    for _ in range(rounds):
        for connection in connections:
            connection.sendall(message)
        for connection in connections:
            left = SIZE
            while left:
                piece = connection.recv(left)
                if not piece:
                    raise OSError("the server has closed a connection")
                left -= len(piece)


def run(contender: str, style: str, rounds: int) -> Profile:
    """One server in callgrind, under so many rounds of the load. Raises ChildError if it fails."""
    settings = json.dumps({"contender": contender, "style": style})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        server = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", "--error-markers=,", "-q", f"--callgrind-out-file={out}"),
                *(sys.executable, "-m", "benchmarks.servers", settings),
            ],
            cwd=children.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            load(children.hear(server, START_TIMEOUT)["port"], style, rounds)
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=START_TIMEOUT)
        finally:
            server.kill()
            server.communicate()
        if not out.exists():
            raise children.ChildError("valgrind has written nothing")
        return parse(out)


def measure(contender: str, style: str) -> dict[tuple[str, str], float]:
    """Instructions a message by (object, function)."""
    few, many = (run(contender, style, rounds) for rounds in ROUNDS)
    return many.less(few, (ROUNDS[1] - ROUNDS[0]) * CONNECTIONS)


def by_object(costs: dict[tuple[str, str], float]) -> list[tuple[str, float]]:
    """The sum of each object file, the largest first."""
    sums: Counter[str] = Counter()
    for (name, _), cost in costs.items():
        sums[name] += cost  # type: ignore[assignment]  # a Counter may hold floats
    return [(name, cost) for name, cost in sums.most_common() if cost >= LEAST]


def as_text(contender: str, costs: dict[tuple[str, str], float], functions: int, markdown: bool) -> str:
    """The table of one contender."""
    total = sum(costs.values())
    parts = ", ".join(f"{name} {cost:,.0f}" for name, cost in by_object(costs))
    top = sorted(costs.items(), key=lambda pair: -pair[1])[:functions]
    top = [pair for pair in top if pair[1] >= LEAST]
    rest = total - sum(cost for _, cost in top)
    if not markdown:
        rows = "\n".join(f"{cost:9,.0f}  {name:10} {function}" for (name, function), cost in top)
        return f"{contender}: {total:,.0f} instructions a message ({parts})\n{rows}\n{rest:9,.0f}  the rest\n"
    rows = "\n".join(f"| {cost:,.0f} | {name} | `{function}` |" for (name, function), cost in top)
    return (
        f"### {contender}: {total:,.0f}\n\nBy library: {parts}.\n\n| instructions | in | function |\n"
        f"|---:|---|---|\n{rows}\n| {rest:,.0f} | | the rest |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description="Count the instructions of one message."
    )
    parser.add_argument("--style", default=STYLE, help="a style of benchmarks/servers.py (default: protocol)")
    parser.add_argument("--contenders", metavar="A,B", default=",".join(SHOWN))
    parser.add_argument("--functions", type=int, default=25, help="how many functions to show of each")
    parser.add_argument("--markdown", action="store_true", help="tables for a page")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed; on Debian: apt-get install valgrind")
    for name in arguments.contenders.split(","):
        if name not in contenders.ALL:
            parser.error(f"no contender named {name!r}; there are {', '.join(contenders.ALL)}")
        if contenders.missing(name):
            print(f"not installed here, left out: {name}", file=sys.stderr)
            continue
        try:
            costs = measure(name, arguments.style)
        except (children.ChildError, OSError, subprocess.TimeoutExpired) as error:
            print(f"{name}: failed: {error}", file=sys.stderr)
            continue
        print(as_text(name, costs, arguments.functions, arguments.markdown), flush=True)


if __name__ == "__main__":
    main()
