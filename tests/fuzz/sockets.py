"""Ops on plain sockets: `sock_*`, cancelled at every kind of moment; listeners; sockets made transports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

from support import peers

from .callbacks import lose
from .link import Link
from .link import sockets as pair
from .transports import KINDS, attach
from .vocabulary import FAMILY, SIZE, SLOT, SMALL, TURNS, YES, op

HOW = ("recv", "recv_into", "recvfrom", "recvfrom_into")


async def received(loop: Any, sock: socket.socket, how: str, size: int) -> bytes:
    if how == "recv":
        return await loop.sock_recv(sock, size)
    if how == "recvfrom":
        return (await loop.sock_recvfrom(sock, size))[0]
    buffer = bytearray(size)
    if how == "recv_into":
        return bytes(buffer[: await loop.sock_recv_into(sock, buffer)])
    return bytes(buffer[: (await loop.sock_recvfrom_into(sock, buffer))[0]])


@op("sock", 5, SLOT, FAMILY)
def open_sock(world: Any, slot: int, family: str) -> None:
    if world.free(slot):
        near, peer = pair(family)
        link = world.links[slot] = Link(world, f"{slot}.{world.number()}", "sock", peer)
        link.sock = near


def receive(world: Any, link: Link, how: str, size: int) -> None:
    """One receive at a time: a second one before the first is done is an error of its caller's on asyncio."""
    if link.reading is not None and not link.reading.done() and not link.reading.cancelling():
        return

    async def run() -> None:
        with contextlib.suppress(ConnectionError):
            data = await received(world.loop, link.sock, how, size)
            link.into.arrived(data)
            if not data and link.peer_state == "open":
                world.problems.add("an end that nobody made", link.name)

    if link.sock is not None and not (
        link.peer_state in ("closed", "shut", "reset") and not link.into.outstanding
    ):
        link.reading = world.loop.create_task(run())


@op("sock", 10, SLOT, HOW, SIZE)
def recv(world: Any, slot: int, how: str, size: int) -> None:
    if link := world.link(slot, "sock"):
        receive(world, link, how, size)


@op("sock", 8, SLOT)
def cancel(world: Any, slot: int) -> None:
    link = world.link(slot, "sock")
    if link and link.reading and not link.reading.done():
        # asyncio loses what a receive has taken whose task is cancelled before it could see that.
        link.into.gaps |= world.lenient
        link.reading.cancel()


@op("sock", 4, SLOT, HOW, SMALL)
async def timed(world: Any, slot: int, how: str, size: int) -> None:
    """A receive that has no time at all."""
    link = world.link(slot, "sock")
    if not link or link.sock is None or (link.reading and not link.reading.done()):
        return
    calls = {"recv": world.loop.sock_recv, "recvfrom": world.loop.sock_recvfrom}
    buffer = bytearray(size)
    with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
        if how in calls:
            result = await asyncio.wait_for(calls[how](link.sock, size), 0)
            link.into.arrived(result if how == "recv" else result[0])
        elif how == "recv_into":
            link.into.arrived(
                bytes(buffer[: await asyncio.wait_for(world.loop.sock_recv_into(link.sock, buffer), 0)])
            )
        else:
            count, _ = await asyncio.wait_for(world.loop.sock_recvfrom_into(link.sock, buffer), 0)
            link.into.arrived(bytes(buffer[:count]))


@op("sock", 4, SLOT, SIZE)
def sendall(world: Any, slot: int, size: int) -> None:
    link = world.link(slot, "sock")
    if not link or link.sock is None or link.busy or not link.out.whole:
        return
    data = link.out.make(size)
    link.sent(data, at_once=False)

    async def run() -> None:
        try:
            await world.loop.sock_sendall(link.sock, data)
        except ConnectionError:
            link.out.cut()

    link.tasks.append(world.loop.create_task(run()))


@op("sock", 2, SLOT)
def cancel_send(world: Any, slot: int) -> None:
    link = world.link(slot, "sock")
    if link and link.busy:
        link.out.cut()
        link.tasks[-1].cancel()


@op("sock", 3, SLOT)
async def close_sock(world: Any, slot: int) -> None:
    """Closed when nothing waits for it, as asyncio demands."""
    link = world.link(slot, "sock")
    if not link or link.sock is None:
        return
    await quiet(world, link)
    link.sock.close()
    link.sock = None
    link.into.cut()


async def quiet(world: Any, link: Link) -> None:
    """End what waits for the socket."""
    if link.busy:
        link.out.cut()
    for task in [link.reading, *link.tasks]:
        if task and not task.done():
            link.into.gaps |= world.lenient
            task.cancel()
    await world.turns(3)


@op("sock", 3, SLOT, KINDS)
async def adopt(world: Any, slot: int, kind: str) -> None:
    """A transport is made of the socket: what had arrived is its."""
    link = world.link(slot, "sock")
    if not link or link.sock is None or link.peer_state != "open":
        return
    await quiet(world, link)
    sock, link.sock, link.kind = link.sock, None, "protocol"
    await attach(world, link, kind, sock)


@op("always", 2, SLOT)
def duplicate(world: Any, slot: int) -> None:
    """Another fd for the near end stays open to the end."""
    link = world.link(slot)
    sock = link and (link.sock or (link.alive and link.transport.get_extra_info("socket")))
    if sock:
        link.held = True
        fd = os.dup(sock.fileno())
        world.closers.append(lambda: os.close(fd))


@op("drop", 4, SLOT, HOW, YES)
def abandon(world: Any, slot: int, how: str, raising: bool) -> None:
    """A receive is begun and forgotten: nobody says what becomes of bytes that it takes."""
    link = world.link(slot, "sock")
    if not link or link.sock is None or (link.reading and not link.reading.done()):
        return
    link.into.gaps = world.abandoned = True
    loop, sock = world.loop, link.sock
    calls = {
        "recv": lambda: loop.sock_recv(sock, 100),
        "recv_into": lambda: loop.sock_recv_into(sock, bytearray(100)),
        "recvfrom": lambda: loop.sock_recvfrom(sock, 100),
        "recvfrom_into": lambda: loop.sock_recvfrom_into(sock, bytearray(100)),
    }
    with contextlib.suppress(ConnectionError):
        lose([calls[how]()], raising)


# Listeners.


class Listener:
    """A listening socket, who has knocked, and who was let in."""

    def __init__(self) -> None:
        self.sock = socket.create_server((peers.LOOPBACK, 0))
        self.sock.setblocking(False)
        self.knocked: list[socket.socket] = []
        self.accepted = 0
        self.task: asyncio.Task[None] | None = None
        self.gaps = False

    def close(self) -> None:
        if self.task:
            self.task.cancel()
        for sock in [self.sock, *self.knocked]:
            sock.close()


@op("sock", 2, SLOT)
def listen(world: Any, slot: int) -> None:
    if ("listener", slot) in world.things:
        return
    listener = world.things["listener", slot] = Listener()
    world.closers.append(listener.close)

    def check() -> list[tuple[str, str]]:
        left = len(listener.knocked) - listener.accepted
        return [("a connection is not accepted", f"{left} left")] if left and not listener.gaps else []

    world.checks.append(lambda: check() if world.draining else [])


@op("sock", 3, SLOT)
def knock(world: Any, slot: int) -> None:
    if listener := world.things.get(("listener", slot)):
        listener.knocked.append(socket.create_connection(listener.sock.getsockname()))


@op("sock", 3, SLOT)
def accept(world: Any, slot: int) -> None:
    listener = world.things.get(("listener", slot))
    if not listener or (listener.task and not listener.task.done() and not listener.task.cancelling()):
        return

    async def run() -> None:
        sock, address = await world.loop.sock_accept(listener.sock)
        with sock:
            listener.accepted += 1
            if not listener.gaps and address != listener.knocked[listener.accepted - 1].getsockname():
                world.problems.add("accepted out of order", f"{address}")

    listener.task = world.loop.create_task(run())


@op("sock", 2, SLOT)
def cancel_accept(world: Any, slot: int) -> None:
    listener = world.things.get(("listener", slot))
    if listener and listener.task and not listener.task.done():
        listener.gaps |= world.lenient  # as with receives
        listener.task.cancel()


@op("internal", 0)
def drain_listeners(world: Any) -> None:
    world.draining = True

    def drain() -> None:
        for key, listener in world.things.items():
            if key[0] == "listener" and len(listener.knocked) > listener.accepted and not listener.gaps:
                accept(world, key[1])

    world.drains.append(drain)


@op("sock", 2, SLOT, (None, *TURNS))
async def connect(world: Any, slot: int, cancelled: int | None) -> None:
    """sock_connect; cancelled after so many turns if a number is given."""
    if not world.free(slot):
        return
    near = socket.socket()
    near.setblocking(False)
    with socket.create_server((peers.LOOPBACK, 0)) as listener:
        task = world.loop.create_task(connected(world, near, listener.getsockname()))
        if cancelled is not None:
            await world.turns(cancelled)
            task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            await world.turns(2)
            near.close()
            return
        task.result()
        peer, _ = listener.accept()
    peer.setblocking(False)
    link = world.links[slot] = Link(world, f"{slot}.{world.number()}", "sock", peer)
    link.sock = near


async def connected(world: Any, sock: socket.socket, address: Any) -> None:
    await world.loop.sock_connect(sock, address)
