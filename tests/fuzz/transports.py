"""Ops on transports: make, write, pause, half-close, close, set another protocol, sendfile."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from . import protocols
from .link import Link, sockets
from .model import PIECES, ROOM
from .vocabulary import FAMILY, SIZE, SLOT, SMALL, TURNS, WAIT, op

KINDS = ("plain", "plain", "plain", "stream", "stream", "bytearray", "array", "ctypes")
ENDS = ("close", "abort")


async def attach(world: Any, link: Link, kind: str, sock: Any) -> None:
    """Make a transport of the socket."""
    link.protocol = protocols.make(link, kind)
    await world.loop.create_connection(lambda: link.protocol, sock=sock)


@op("transport", 6, SLOT, KINDS, FAMILY)
async def open_link(world: Any, slot: int, kind: str, family: str) -> None:
    if not world.free(slot):
        return
    near, peer = sockets(family)
    link = world.links[slot] = Link(world, f"{slot}.{world.number()}", "protocol", peer)
    await attach(world, link, kind, near)


@op("always", 6, SLOT, SIZE)
def feed(world: Any, slot: int, size: int) -> None:
    if link := world.link(slot):
        link.feed(size)


@op("always", 4, SLOT, SIZE)
def take(world: Any, slot: int, size: int) -> None:
    if link := world.link(slot):
        link.take(size)


@op("always", 2, SLOT, ("shut", "closed", "reset"))
def hang_up(world: Any, slot: int, how: str) -> None:
    link = world.link(slot)
    if link and (link.engine is None or how != "shut"):
        link.hang_up(how)


@op("always", 9, TURNS)
async def turns(world: Any, count: int) -> None:
    await world.turns(count)


@op("always", 4, WAIT)
async def wait(world: Any, milliseconds: int) -> None:
    await asyncio.sleep(milliseconds / 1000)


@op("always", 2)
async def settle(world: Any) -> None:
    await world.settle()


@op("always", 1)
async def idle(world: Any) -> None:
    await world.settle()
    await world.idle()


def writable(world: Any, slot: int) -> Link | None:
    link = world.link(slot, "transport")
    return link if link and link.alive and not link.shut and not link.busy else None


@op("transport", 12, SLOT, SIZE, ("bytes", "bytearray", "memoryview"))
def write(world: Any, slot: int, size: int, kind: str) -> None:
    if link := writable(world, slot):
        data = link.out.make(size)
        link.sent(data)
        link.transport.write({"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}[kind](data))


@op("transport", 4, SLOT, SMALL, (1, 2, 5))
def writelines(world: Any, slot: int, size: int, count: int) -> None:
    if link := writable(world, slot):
        pieces = [link.out.make(size) for _ in range(count)]
        for piece in pieces:
            link.sent(piece)
        link.transport.writelines(pieces)


@op("transport", 2, SLOT, SMALL)
def raw_write(world: Any, slot: int, size: int) -> None:
    """Send bytes through the fd itself, behind the transport's back: asyncio has sent all earlier writes by
    then.
    """
    link = writable(world, slot)
    if link is None or link.engine or link.peer_state != "open" or link.out.promised != len(link.out.made):
        return
    if link.out.outstanding + size <= ROOM and link.out.pieces < PIECES:
        data = link.out.make(size)
        sent = os.write(link.transport.get_extra_info("socket").fileno(), data)
        link.out.add(data[:sent])


@op("transport", 2, SLOT)
def write_eof(world: Any, slot: int) -> None:
    link = writable(world, slot)
    if link and link.engine is None and link.transport.can_write_eof():
        link.shut = True
        try:
            link.transport.write_eof()
        except OSError:
            if link.peer_state not in ("closed", "reset"):
                raise


@op("transport", 5, SLOT, ENDS)
def end(world: Any, slot: int, how: str) -> None:
    link = world.link(slot, "transport")
    if link and link.alive:
        link.ending(orderly=how == "close" and not link.busy)
        getattr(link.transport, how)()


@op("transport", 4, SLOT)
def pause(world: Any, slot: int) -> None:
    link = world.link(slot, "protocol")
    if link and link.alive and not link.busy:
        link.transport.pause_reading()
        link.paused = True


@op("transport", 4, SLOT)
def resume(world: Any, slot: int) -> None:
    link = world.link(slot, "protocol")
    if link and link.alive and not link.busy:
        link.paused = False
        link.transport.resume_reading()


@op("transport", 1, SLOT)
def keep_open(world: Any, slot: int) -> None:
    """From now on the protocol keeps its end open after eof_received."""
    if (link := world.link(slot, "protocol")) and link.engine is None:
        link.keep_open = True


@op("transport", 1, SLOT, (0, 1000, 100_000))
def limits(world: Any, slot: int, high: int) -> None:
    if link := writable(world, slot):
        link.transport.set_write_buffer_limits(high=high)


@op("transport", 1, SLOT)
def extra(world: Any, slot: int) -> None:
    link = world.link(slot, "transport")
    if link and link.alive:
        sock = link.transport.get_extra_info("socket")
        if sock.fileno() < 0 or (link.engine and not link.transport.get_extra_info("sslcontext")):
            world.problems.add("get_extra_info", repr(sock))


@op("transport", 1, SLOT, ("plain", "bytearray", "array", "ctypes"))
def set_protocol(world: Any, slot: int, kind: str) -> None:
    link = world.link(slot, "protocol")
    if link and link.alive and not link.engine:
        link.protocol = protocols.make(link, kind)
        link.transport.set_protocol(link.protocol)
        if link.transport.get_protocol() is not link.protocol:
            world.problems.add("get_protocol", link.name)


@op("transport", 2, SLOT)
def drained_paused(world: Any, slot: int) -> None:
    """Bytes that a paused transport has not taken are in the socket, for its next owner."""
    link = world.link(slot, "protocol")
    if link and link.alive and link.paused and not link.engine and not link.busy and not link.into.gaps:
        sock = link.transport.get_extra_info("socket")
        with contextlib.suppress(BlockingIOError, ConnectionError):
            left = len(link.into.made) - link.into.got
            link.into.arrived(os.read(sock.fileno(), 1 << 20))
            if left and link.peer_state == "open" and left < ROOM and link.into.outstanding:
                world.problems.add("a paused transport took bytes", f"{link.name}: {link.into.outstanding}")
            return
        if link.into.outstanding and link.peer_state == "open":
            world.problems.add("a paused transport took bytes", f"{link.name}: {link.into.outstanding}")


@op("sendfile", 8, SLOT, SIZE)
def sendfile(world: Any, slot: int, size: int) -> None:
    """Also while another sendfile is under way: it is refused, and tried again until the other is done."""
    link = world.link(slot, "transport")
    if not link or not link.alive or link.shut or link.engine or link.peer_state != "open":
        return
    if sum(not task.done() for task in link.tasks) > 1:
        return
    data = link.out.make(size)
    file = open(os.memfd_create("sendfile"), "w+b", buffering=0)  # noqa: SIM115 (the task closes it)
    file.write(data)
    link.sent(data, at_once=False)

    async def run() -> None:
        with file:
            while True:
                try:
                    count = await world.loop.sendfile(link.transport, file, 0)
                    break
                except (OSError, asyncio.CancelledError):
                    link.out.gaps = True
                    if link.peer_state in ("open", "shut") and not link.closing:
                        raise
                    return
                # asyncio refuses a second one with a RuntimeError, or (its own fault) with a KeyError.
                except (RuntimeError, KeyError):
                    if link.closing or link.peer_state not in ("open", "shut"):
                        link.out.gaps = True
                        return
                    await asyncio.sleep(0)
            if count != size and not link.closing and link.peer_state == "open":
                world.problems.add("sendfile counts wrong", f"{link.name}: {count} of {size}")

    link.tasks.append(world.loop.create_task(run()))
