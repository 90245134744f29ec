"""Owns: greenlets of proact beside gevent's: `python -m benchmarks.green [--rounds N]`.

Each round runs every contender once, one after another, in a process of its own. What counts is CPU
time: of the process for switches, of the server for echoed messages (1 KiB, at 50 and 100 connections).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks import children

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

CHUNK = 65536
SERVERS = (
    "gevent",
    "gevent-send",
    "gevent-proact-io_uring",
    "gevent-proact-epoll",
    "gevent-readiness-io_uring",
    "gevent-readiness-epoll",
    "green-io_uring",
    "green-epoll",
    "green-send-io_uring",
)
LOOPS = {"proact": "Loop", "readiness": "ReadinessLoop"}
SWITCHERS = ("gevent", "green")
CONNECTIONS = (50, 100)


def handler(send: bool) -> Callable[[Any], None]:
    """The same handler for both: receive, send, until the peer has gone."""

    def handle(connection: Any) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = connection.send if send else connection.sendall
        try:
            while data := connection.recv(CHUNK):
                answer(data)
        except ConnectionError:
            pass  # the load has ended
        finally:
            connection.close()

    return handle


def serve(contender: str) -> None:
    """Serve until this process is killed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    handle = handler("send" in contender)
    where = {"port": listener.getsockname()[1]}
    engine = contender.rpartition("-")[2]
    if loop := LOOPS.get(contender.removeprefix("gevent-").rpartition("-")[0]):
        # Before anything of gevent's is imported, which reads this.
        os.environ["GEVENT_LOOP"] = f"proact.green.gevent_loop.{loop}"
        os.environ["GEVENT_BACKEND"] = engine
    if contender.startswith("gevent"):
        gevent_socket: Any = importlib.import_module("gevent.socket")
        server: Any = importlib.import_module("gevent.server").StreamServer
        children.say(where)
        server(gevent_socket.socket(fileno=listener.detach()), lambda sock, _: handle(sock)).serve_forever()
    from proact import green

    def main() -> None:
        with green.socket(fileno=listener.detach()) as accepting:
            children.say(where)
            while True:
                connection, _ = accepting.accept()
                green.spawn(handle, connection)

    green.run_main(main, engine=engine, watchdog=None)


def timed(count: int, body: Callable[[int], None]) -> float:
    """Microseconds of CPU time for each of `count`."""
    begun = time.process_time()
    body(count)
    return (time.process_time() - begun) / count * 1e6


def switches_of_gevent() -> dict[str, float]:
    """What gevent's greenlets cost."""
    gevent: Any = importlib.import_module("gevent")

    def sleeps(count: int) -> None:
        for _ in range(count):
            gevent.sleep(0)

    def in_turn(count: int) -> None:
        gevent.joinall([gevent.spawn(sleeps, count // 10) for _ in range(10)])

    def spawns(count: int) -> None:
        for _ in range(count):
            gevent.spawn(lambda: None).join()

    def many(count: int) -> None:
        gevent.joinall([gevent.spawn(lambda: None) for _ in range(count)])

    return {
        "sleep(0)": gevent.spawn(timed, 200_000, sleeps).get(),
        "sleep(0), ten": gevent.spawn(timed, 200_000, in_turn).get(),
        "spawn + join": gevent.spawn(timed, 20_000, spawns).get(),
        "spawn 100,000": gevent.spawn(timed, 100_000, many).get(),
    }


def switches_of_green() -> dict[str, float]:
    """What proact's greenlets cost, with what only they have."""
    from proact import green

    def sleeps(count: int) -> None:
        for _ in range(count):
            green.sleep(0)

    def in_turn(count: int) -> None:
        for greenlet in [green.spawn(sleeps, count // 10) for _ in range(10)]:
            greenlet.join()

    def spawns(count: int) -> None:
        for _ in range(count):
            green.spawn(lambda: None).join()

    def many(count: int) -> None:
        for greenlet in [green.spawn(lambda: None) for _ in range(count)]:
            greenlet.join()

    def main() -> dict[str, float]:
        hub = green.current()
        assert hub is not None
        loop = hub.hub.loop
        done: asyncio.Future[None] = loop.create_future()
        done.set_result(None)

        def finished(count: int) -> None:
            for _ in range(count):
                green.await_(done)

        def suspending(count: int) -> None:
            for _ in range(count):
                future: asyncio.Future[None] = loop.create_future()
                loop.call_soon(future.set_result, None)
                green.await_(future)

        return {
            "sleep(0)": timed(200_000, sleeps),
            "sleep(0), ten": timed(200_000, in_turn),
            "spawn + join": timed(20_000, spawns),
            "spawn 100,000": timed(100_000, many),
            "await_, finished": timed(100_000, finished),
            "await_, suspends": timed(50_000, suspending),
        }

    return green.run_main(main, watchdog=None)


def echo(contender: str, connections: int, duration: float) -> float:
    """Microseconds of the server's CPU time for each message."""
    from proact import _core

    with children.child("benchmarks.green", {"serve": contender}) as server:
        port = children.hear(server, 20)["port"]
        before = children.cpu_seconds(server.pid)
        report = _core.echo_load(
            "127.0.0.1", port, connections=connections, size=1024, warmup=0.0, duration=duration
        )
        after = children.cpu_seconds(server.pid)
    return float((after - before) / report["messages"] * 1e6)


def child() -> None:
    settings = children.begin(children.SERVER_CORE)
    if "serve" in settings:
        serve(settings["serve"])
    else:
        children.say({"gevent": switches_of_gevent, "green": switches_of_green}[settings["switch"]]())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.green")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs")
    parser.add_argument("--duration", type=float, default=0.6, help="seconds of each echo run")
    arguments = parser.parse_args()
    children.settle(children.LOAD_CORE)
    results: dict[str, dict[str, list[float]]] = {}

    def note(case: str, contender: str, value: float) -> None:
        results.setdefault(case, {}).setdefault(contender, []).append(value)

    for _ in range(arguments.rounds):
        for contender in SWITCHERS:
            with children.child("benchmarks.green", {"switch": contender}) as process:
                for case, value in children.hear(process, 120).items():
                    note(case, contender, value)
        for connections in CONNECTIONS:
            for contender in SERVERS:
                note(f"echo, {connections}", contender, echo(contender, connections, arguments.duration))
    for case, by in results.items():
        base = statistics.median(by["gevent"]) if "gevent" in by else None
        for contender, values in by.items():
            median = statistics.median(values)
            ratio = f"{median / base:5.2f} x gevent" if base else ""
            print(f"{case:18} {contender:20} {median:7.2f} µs CPU {ratio}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        json.loads(sys.argv[1])
        child()
    else:
        main()
