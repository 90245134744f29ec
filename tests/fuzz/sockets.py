"""Ops on plain sockets: `sock_*`, cancelled at all kinds of moments; listeners; sockets that become
transports.
"""

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


# Each receive: how to call it with a buffer, and how to get the bytes from its result and the buffer.
CALLS: dict[str, tuple[Any, Any]] = {
    "recv": (lambda loop, sock, buffer: loop.sock_recv(sock, len(buffer)), lambda got, _: got),
    "recv_into": (
        lambda loop, *rest: loop.sock_recv_into(*rest),
        lambda count, buffer: bytes(buffer[:count]),
    ),
    "recvfrom": (lambda loop, sock, buffer: loop.sock_recvfrom(sock, len(buffer)), lambda got, _: got[0]),
    "recvfrom_into": (
        lambda loop, *rest: loop.sock_recvfrom_into(*rest),
        lambda got, buffer: bytes(buffer[: got[0]]),
    ),
}


async def received(loop: Any, sock: socket.socket, how: str, size: int) -> bytes:
    buffer = bytearray(size)
    call, data_of = CALLS[how]
    return data_of(await call(loop, sock, buffer), buffer)


@op("sock", 5, SLOT, FAMILY)
def open_sock(world: Any, slot: int, family: str) -> None:
    if world.free(slot):
        near, peer = pair(family)
        link = world.links[slot] = Link(world, f"{slot}.{world.number()}", "sock", peer)
        link.sock = near


def receive(world: Any, link: Link, how: str, size: int, direct: bool = False) -> None:
    """One receive at a time: on asyncio, it is an error to begin a second one before the first is done.

    `direct`: what the loop returns is waited for itself, and begins at once where that is a future.
    """
    old = link.reading
    if link.sock is None or (old and not old.done() and not getattr(old, "cancelling", int)()):
        return
    if link.peer_state in ("closed", "shut", "reset") and not link.into.outstanding:
        return
    if direct:
        buffer = bytearray(size)
        call, data_of = CALLS[how]
        link.reading = asyncio.ensure_future(call(world.loop, link.sock, buffer), loop=world.loop)
        link.reading.add_done_callback(lambda done: taken(world, link, done, data_of, buffer))
    else:
        link.reading = world.loop.create_task(run(world, link, how, size))


async def run(world: Any, link: Link, how: str, size: int) -> None:
    with contextlib.suppress(ConnectionError):
        came(world, link, await received(world.loop, link.sock, how, size))


def taken(world: Any, link: Link, done: Any, data_of: Any, buffer: bytearray) -> None:
    if not done.cancelled() and not isinstance(done.exception(), ConnectionError):
        came(world, link, data_of(done.result(), buffer))


def came(world: Any, link: Link, data: bytes) -> None:
    link.into.arrived(data)
    if not data and link.peer_state == "open":
        world.problems.add("an end that nobody made", link.name)


@op("sock", 10, SLOT, HOW, SIZE, YES)
def recv(world: Any, slot: int, how: str, size: int, direct: bool) -> None:
    if link := world.link(slot, "sock"):
        receive(world, link, how, size, direct)


@op("sock", 8, SLOT)
def cancel(world: Any, slot: int) -> None:
    link = world.link(slot, "sock")
    if link and link.reading and not link.reading.done():
        # asyncio loses the bytes of a receive whose task is cancelled before it sees them.
        link.into.gaps |= world.lenient
        link.reading.cancel()


@op("sock", 4, SLOT, HOW, SMALL)
async def timed(world: Any, slot: int, how: str, size: int) -> None:
    """A receive with a timeout of zero."""
    link = world.link(slot, "sock")
    if not link or link.sock is None or (link.reading and not link.reading.done()):
        return
    buffer = bytearray(size)
    call, data_of = CALLS[how]
    with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
        result = await asyncio.wait_for(call(world.loop, link.sock, buffer), 0)
        link.into.arrived(data_of(result, buffer))


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
    """Close it when nothing waits for it, as asyncio requires."""
    link = world.link(slot, "sock")
    if not link or link.sock is None:
        return
    await quiet(world, link)
    link.sock.close()
    link.sock = None
    link.into.cut()


async def quiet(world: Any, link: Link) -> None:
    """End everything that waits for the socket."""
    if link.busy:
        link.out.cut()
    for task in [link.reading, *link.tasks]:
        if task and not task.done():
            link.into.gaps |= world.lenient
            task.cancel()
    await world.turns(3)


@op("sock", 3, SLOT, KINDS)
async def adopt(world: Any, slot: int, kind: str) -> None:
    """Make a transport from the socket: it gets the bytes that had arrived."""
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
    """Begin a receive and drop it: the bytes that it takes are not checked."""
    link = world.link(slot, "sock")
    if not link or link.sock is None or (link.reading and not link.reading.done()):
        return
    link.into.gaps = world.abandoned = True
    with contextlib.suppress(ConnectionError):
        lose([CALLS[how][0](world.loop, link.sock, bytearray(100))], raising)


# Listeners.


class Listener:
    """A listening socket, the connections that were made, and those that were accepted."""

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
        listener.gaps |= world.lenient  # asyncio loses them, as with receives
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
