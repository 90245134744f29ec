"""Ops with other processes: forks that keep duplicates, writers that end at once, exits, cancelled starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from .link import sockets
from .model import Stream
from .vocabulary import FAMILY, SMALL, TURNS, op


@op("fork", 5, (5, 50, 10_000))
def fork(world: Any, milliseconds: int) -> None:
    """A child keeps a duplicate of every fd for so long."""
    if len(world.holders) < 3:
        pid = os.fork()
        if not pid:
            time.sleep(milliseconds / 1000)
            os._exit(0)
        world.holders.append(pid)


@op("runs", 3, ("exit", "kill", "exec", "close"), FAMILY, SMALL, TURNS)
def doomed(world: Any, how: str, family: str, size: int, turns: int) -> None:
    """A process with its own loop writes and ends at once: the bytes that the socket took have left."""
    near, far = sockets(family)
    stream = Stream(f"doomed {world.number()}", world.problems)
    pieces = [stream.make(size) for _ in range(3)]
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            far.close()
            die(world, near, pieces, how, turns)
        os._exit(70)
    near.close()
    far.settimeout(world.patience)
    for piece in pieces:
        stream.add(piece)
    os.waitpid(pid, 0)
    with far, contextlib.suppress(OSError):
        while data := far.recv(1 << 16):
            stream.arrived(data)
    if stream.missing:
        world.problems.add(
            "bytes of an ending process are lost", f"{stream.missing} of {len(stream.made)}, {how}"
        )


def die(world: Any, near: socket.socket, pieces: list[bytes], how: str, turns: int) -> None:
    asyncio.events._set_running_loop(None)
    loop = world.make_loop()

    async def main() -> None:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        for piece in pieces:
            transport.write(piece)
        await world.turns(turns)
        if how == "exit":
            os._exit(0)
        elif how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "exec":
            os.execv("/bin/true", ["true"])

    loop.run_until_complete(main())
    loop.close()
    os._exit(0)


@op("process", 3, (0, 10, 25), ("sleeps", "spins", "serves"))
def daemon(world: Any, milliseconds: int, activity: str) -> None:
    """A program exits while the loop of a daemon thread works: its exit code is unchanged."""
    code = DAEMON.format(
        delay=milliseconds / 1000, activity=activity, engine=getattr(world.loop, "engine", "")
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
    )
    world.closers.append(child.kill)
    _, errors = child.communicate(timeout=20)
    if child.returncode != 5:
        world.problems.add(f"exit {child.returncode} of a daemon thread's program", errors.decode()[-300:])


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


DAEMON = """
import asyncio, socket, sys, threading, time
from support import loops
loop = loops.new_event_loop({engine!r})
async def sleeps():
    while True: await asyncio.sleep(0.0001)
async def spins():
    while True: await asyncio.sleep(0)
async def serves():
    a, b = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=a)
    reader2, writer2 = await asyncio.open_connection(sock=b)
    while True:
        writer.write(b"x")
        writer2.write(await reader2.read(1))
        await reader.read(1)
def run():
    loop.create_task({activity}())
    loop.run_forever()
threading.Thread(target=run, daemon=True).start()
time.sleep({delay})
sys.exit(5)
"""


@op("process", 6, (0, 1, 2, 3, 5, 8, 12), ("cancel", "runner"))
def spawn(world: Any, turns: int, how: str) -> None:
    """The start of a child is cancelled after so many turns, by its task or by the end of asyncio.run."""
    if how == "cancel":
        if world.loop.is_running():
            task = world.loop.create_task(child())
            world.tasks.append(task)
            world.loop.create_task(cancelled(world, task, turns))
        return
    if world.lenient or world.loop.is_running():
        return  # asyncio.run hangs there: https://github.com/python/cpython/issues/103847

    async def main() -> None:
        other = asyncio.ensure_future(child())
        await world.turns(turns)
        assert other

    with asyncio.Runner(loop_factory=world.make_loop) as runner:
        runner.run(main())


async def child() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "0.002", stdin=-1, stdout=-1, stderr=-1)
    await process.communicate()


async def cancelled(world: Any, task: asyncio.Task[None], turns: int) -> None:
    await world.turns(turns)
    task.cancel()
