"""Ops on StreamReader and StreamWriter, and the receiving of all remaining bytes towards the end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from .link import Link
from .sockets import receive
from .vocabulary import SLOT, SMALL, op


@op("stream", 8, SLOT, ("read", "exactly", "line"), SMALL)
def read(world: Any, slot: int, how: str, size: int) -> None:
    link = world.link(slot, "stream")
    if not link or not link.alive or (link.reading and not link.reading.done()):
        return
    reader = link.protocol.reader

    async def run() -> None:
        try:
            if how == "line":
                data = await reader.readuntil(b"\n")
            else:
                data = await (reader.read if how == "read" else reader.readexactly)(size)
        except asyncio.IncompleteReadError as error:
            data = error.partial
        except (asyncio.LimitOverrunError, OSError):
            return
        link.into.arrived(data)

    link.reading = world.loop.create_task(run())


@op("stream", 4, SLOT)
def cancel_read(world: Any, slot: int) -> None:
    link = world.link(slot, "stream")
    if link and link.reading:
        link.reading.cancel()


@op("stream", 3, SLOT)
async def drain(world: Any, slot: int) -> None:
    link = world.link(slot, "stream")
    if link and link.alive and link.writer:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(link.writer.drain(), 0.01)


@op("internal", 0)
def drain_links(world: Any) -> None:
    """Towards the end, receive everything that can be received."""

    async def run(link: Link) -> None:
        while link.alive and not link.protocol.reader.at_eof():
            if not (data := await link.protocol.reader.read(1 << 16)):
                return
            link.into.arrived(data)

    def drain() -> None:
        for link in world.links.values():
            if link.alive and link.kind == "stream" and not (link.reading and not link.reading.done()):
                with contextlib.suppress(OSError):
                    if link.protocol.reader.exception() is None and not link.protocol.reader.at_eof():
                        link.reading = world.loop.create_task(run(link))
            elif link.kind == "sock" and link.sock is not None:
                receive(world, link, "recv", 1 << 16)

    for link in world.links.values():
        if link.kind == "stream" and link.reading:
            link.reading.cancel()
    world.drains.append(drain)
