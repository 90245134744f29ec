"""Ops that turn a plain connection into TLS: with a paused writer, with bytes that have already arrived."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from typing import Any

from support import tls

from .link import Link
from .protocols import BufferedNear
from .vocabulary import SLOT, op

server_context = functools.cache(tls.server_context)
client_context = functools.cache(tls.client_context)


@op("tls", 8, SLOT, ("after", "before", "together"))
async def upgrade(world: Any, slot: int, hello: str) -> None:
    """The ClientHello comes after start_tls, before it, or (streams) in the segment of the last line."""
    link = world.link(slot, "transport")
    if (
        not link
        or not link.alive
        or link.busy
        or link.shut
        or link.engine
        or link.peer_state != "open"
        or link.keep_open
    ):
        return
    if link.kind == "stream":
        if link.reading and not link.reading.done():
            return
        # gh-142352 repaired it in asyncio, but not every Python here has the repair.
        hello = "together" if hello == "together" and not world.lenient else "after"
    elif hello == "together":
        return
    if world.lenient and link.write_paused:
        # Nobody resumes it; and writer.start_tls drains first, while its StreamReader takes the ClientHello.
        return
    if world.lenient and isinstance(link.protocol, BufferedNear):
        return  # asyncio's TLS slices the buffer, which copies it, and counts its items, not its bytes
    # The bytes that the peer has sent are read before.
    deadline = time.monotonic() + world.patience
    while link.into.outstanding and not link.paused and time.monotonic() < deadline:
        if link.kind == "stream":
            link.into.arrived(await link.protocol.reader.read(1 << 16))
        await asyncio.sleep(0)
    if link.into.outstanding or not link.alive or link.peer_state != "open":
        return
    engine = tls.Engine(context=client_context())
    with contextlib.suppress(ssl.SSLWantReadError):
        engine.session.do_handshake()
    first = engine.outgoing.read()
    if hello == "before":
        link.transport.pause_reading()
        link.peer.send(first)
    elif hello == "together":
        line = b"now\n"
        link.into.add(line)
        link.peer.send(line + first)
        link.into.arrived(await link.protocol.reader.readuntil(b"\n"))
        await asyncio.sleep(0.005)
    link.paused = False
    link.plain_left, link.engine, link.shaken = link.out.outstanding, engine, False
    task = world.loop.create_task(upgraded(world, link))
    await world.turns(2)
    if hello == "after":
        link.peer.send(first)
    while not task.done() and time.monotonic() < deadline + world.patience and not world.problems:
        link.take()
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        world.problems.add("start_tls hangs", link.name)
    elif link.closing:
        task.exception()
    else:
        task.result()


async def upgraded(world: Any, link: Link) -> None:
    if link.kind == "stream":
        await link.writer.start_tls(server_context())
        link.transport = link.writer.transport
    else:
        link.transport = await world.loop.start_tls(
            link.transport, link.protocol, server_context(), server_side=True
        )
