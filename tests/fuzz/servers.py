"""Ops on servers: dialled, closed (also by their own factory), and out of file descriptors for a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from typing import Any

from support import peers

from . import protocols
from .link import Link
from .model import Deliberate
from .transports import KINDS
from .vocabulary import SLOT, YES, op


class Server:
    def __init__(self, world: Any, how: str, kind: str) -> None:
        self.world, self.how, self.kind = world, how, kind
        self.server: Any = None
        self.open = True
        self.dialled: list[Link] = []  # in the order in which they will be accepted

    def made(self) -> Any:
        self.world.guard()
        if self.how == "raises":
            self.how = "plain"
            self.refused()
            raise Deliberate("the factory's")
        if self.how == "closes":
            self.close()
            self.world.guard(4)
            self.refused()
            return asyncio.Protocol()
        if not self.dialled:
            self.world.problems.add("accepted too many")
            return asyncio.Protocol()
        link = self.dialled.pop(0)
        link.protocol = protocols.make(link, self.kind)
        return link.protocol

    def refused(self) -> None:
        """Don't check this connection any more."""
        if self.dialled:
            self.give_up(self.dialled.pop(0))

    def give_up(self, link: Link) -> None:
        link.dropped = True
        link.out.abandon()
        link.into.abandon()
        link.peer_ended = True  # it does not matter whether it has

    def close(self) -> None:
        if self.open:
            self.open = False
            self.server.close()
            # Connections that are not accepted yet may or may not be accepted.
            for link in self.dialled:
                self.give_up(link)

    def check(self) -> list[tuple[str, str]]:
        waiting = [link for link in self.dialled if not link.dropped]
        return (
            [("a connection is not accepted", f"{len(waiting)} by a server")] if waiting and self.open else []
        )


@op("server", 5, SLOT, ("plain", "closes", "raises"), KINDS)
async def serve(world: Any, slot: int, how: str, kind: str) -> None:
    old = world.things.get(("server", slot))
    if old is not None and old.open:
        return
    server = world.things["server", slot] = Server(world, how, kind)
    server.server = await world.loop.create_server(server.made, peers.LOOPBACK, 0)
    world.closers.append(server.close)
    world.checks.append(server.check)


def address_of(server: Server) -> Any:
    return server.server.sockets[0].getsockname()


def incoming(world: Any, server: Server, slot: int, sock: socket.socket) -> None:
    """Put the connection into the slot; the peer is a socket of the model."""
    sock.setblocking(False)
    link = world.links[slot] = Link(world, f"{slot}.{world.number()}", "protocol", sock)
    server.dialled.append(link)


@op("server", 8, SLOT, SLOT)
def dial(world: Any, slot: int, at: int) -> None:
    server = world.things.get(("server", at))
    if server and server.open and world.free(slot):
        incoming(world, server, slot, socket.create_connection(address_of(server)))


@op("server", 3, SLOT)
def close_server(world: Any, slot: int) -> None:
    server = world.things.get(("server", slot))
    if server and server.open:
        port = address_of(server)[1]
        server.close()
        # A few turns after the close, no connection is accepted.
        world.checks.append(lambda: still_serves(world, server, port))


def still_serves(world: Any, server: Server, port: int) -> list[tuple[str, str]]:
    if world.holders:  # a forked child has the listening socket too
        return []
    try:
        socket.create_connection((peers.LOOPBACK, port)).close()
    except OSError:
        return []
    return [("a closed server accepts", str(port))]


@op("server", 2, SLOT, (1, 2, 3), (1, 30, 70), YES)
async def starve(world: Any, at: int, count: int, milliseconds: int, extra: bool) -> None:
    """Connections come while no fd is left, for so long."""
    server = world.things.get(("server", at))
    slots = [slot for slot in range(count) if world.free(slot)]
    if not server or not server.open or not slots or world.starved:
        return
    address = address_of(server)
    callers = [socket.socket() for _ in slots]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    world.starved = True
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + extra, hard))
    try:
        for slot, caller in zip(slots, callers, strict=True):
            try:
                caller.connect(address)
            except OSError:
                caller.close()  # a server that closes itself has accepted some
                continue
            incoming(world, server, slot, caller)
            await world.turns(2)
        await asyncio.sleep(milliseconds / 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        world.starved = False
    with contextlib.suppress(OSError):
        world.guard()
