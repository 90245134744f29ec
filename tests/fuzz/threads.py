"""Ops from other threads: calls that are allowed there, and calls that are refused and must have changed
nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from .vocabulary import SLOT, YES, op


async def elsewhere(world: Any, function: Callable[[], Any], asleep: bool) -> bool:
    """Call it in another thread, while the loop sleeps or blocks; False if it was refused."""
    refused: list[BaseException] = []

    def run() -> None:
        if asleep:
            time.sleep(0.005)
        try:
            function()
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    if asleep:
        await asyncio.sleep(0.015)
    thread.join()
    return not refused


@op("thread", 6, SLOT, ("close", "abort"), YES)
async def end_elsewhere(world: Any, slot: int, how: str, asleep: bool) -> None:
    link = world.link(slot, "protocol")
    if not link or not link.alive or link.busy or link.engine:
        return
    if world.lenient:
        # asyncio does it in that thread at once, without protection.
        return
    link.elsewhere, before = True, link.lost
    if await elsewhere(world, getattr(link.transport, how), asleep):
        link.ending()
    elif link.lost > before:
        world.problems.add("a refused call closes", link.name)
    link.elsewhere = False


@op("thread", 4, SLOT, YES)
async def write_elsewhere(world: Any, slot: int, asleep: bool) -> None:
    link = world.link(slot, "protocol")
    if not link or not link.alive or link.busy or link.shut or link.engine or world.lenient:
        return
    data = link.out.random.randbytes(10)
    before, link.out.gaps = link.out.gaps, True
    if await elsewhere(world, lambda: link.transport.write(data), asleep):
        link.sent(data)  # its place among the other writes is unknown
    else:
        link.out.gaps = before


@op("thread", 4, SLOT, ("pause_reading", "resume_reading", "write_eof"), YES)
async def change_elsewhere(world: Any, slot: int, how: str, asleep: bool) -> None:
    link = world.link(slot, "protocol")
    if not link or not link.alive or link.busy or link.shut or link.engine or world.lenient:
        return
    before = link.paused, link.shut
    link.paused &= how != "resume_reading"
    link.shut |= how == "write_eof"
    if not await elsewhere(world, getattr(link.transport, how), asleep):
        link.paused, link.shut = before
    elif how == "pause_reading":
        link.paused = True


@op("thread", 3, SLOT, YES)
async def close_server_elsewhere(world: Any, slot: int, asleep: bool) -> None:
    server = world.things.get(("server", slot))
    if server and server.open and not world.lenient and await elsewhere(world, server.server.close, asleep):
        server.close()


@op("thread", 4, (1, 10, 100), YES)
async def calls_elsewhere(world: Any, count: int, asleep: bool) -> None:
    """The callbacks of a thread arrive, each once and in order."""
    seen: list[int] = []

    def call() -> None:
        for number in range(count):
            world.loop.call_soon_threadsafe(seen.append, number)

    await elsewhere(world, call, asleep)
    world.checks.append(lambda: [] if seen == list(range(count)) else [("threadsafe calls", f"{seen}")])


@op("thread", 2, SLOT, YES)
async def watch_elsewhere(world: Any, slot: int, asleep: bool) -> None:
    """Another thread adds or removes a reader: it is refused, and nothing has changed."""
    found = world.things.get(("watch", slot))
    if found and found.open and not world.lenient:
        if found.watched:
            found.watched = not await elsewhere(world, lambda: world.loop.remove_reader(found.near), asleep)
        else:
            found.watched = await elsewhere(
                world, lambda: world.loop.add_reader(found.near, found.called), asleep
            )
