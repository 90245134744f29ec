"""The activities of the soak: each is one round of something, which verifies its bytes and leaves nothing.

Any of them can be cancelled at any await. If a round leaves anything, the soak fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from support import loops, peers

from .world import World, tls

SIZES = (1, 100, 4096, 20_000, 65_536, 262_144)


class Wrong(AssertionError):
    """The bytes that came back differ from the bytes that were sent."""


def compare(got: bytes | bytearray, sent: bytes) -> None:
    if got == sent:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(got, sent, strict=False)) if a != b), min(len(got), len(sent))
    )
    raise Wrong(f"{len(got)} bytes came back of {len(sent)}; they differ from byte {at} on")


def material(rng: random.Random) -> bytes:
    return rng.randbytes(max(1, int(rng.choice(SIZES) * rng.uniform(0.5, 1.5))))


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


class Client(asyncio.Protocol):
    """Collects the bytes that it gets; `slow` pauses reading now and then."""

    def __init__(self, loop: Any, slow: random.Random | None = None) -> None:
        self.loop = loop
        self.slow = slow
        self.got = bytearray()
        self.transport: Any = None
        # Not a future: a task that waits for it may be cancelled, and would cancel the future too.
        self.lost = asyncio.Event()
        self.reason: BaseException | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.more = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.more.set()
        if self.slow is not None and self.slow.random() < 0.3:
            self.transport.pause_reading()
            self.loop.call_later(self.slow.uniform(0, 0.005), self.transport.resume_reading)

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.reason = exc
        self.lost.set()
        self.may_write.set()
        self.more.set()

    async def received(self, count: int) -> None:
        while len(self.got) < count:
            if self.lost.is_set():
                raise Wrong(f"lost with {self.reason!r} after {len(self.got)} of {count} bytes")
            self.more.clear()
            await self.more.wait()

    async def gone(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            await self.lost.wait()


async def connected(world: World, kind: str, protocol: Client) -> Any:
    """A transport; a connection whose making was cancelled is ended all the same."""
    try:
        transport, _ = await world.connect(kind, lambda: protocol)
    except BaseException:
        await protocol.gone()
        raise
    return transport


def echo(kind: str) -> Callable[[World, random.Random], Awaitable[None]]:
    async def conversation(world: World, rng: random.Random) -> None:
        protocol = Client(world.loop, rng if rng.random() < 0.25 else None)
        transport = await connected(world, kind, protocol)
        try:
            if rng.random() < 0.2:
                transport.set_write_buffer_limits(high=rng.choice((0, 1000, 1 << 20)))
            for _ in range(rng.randrange(1, 4)):
                data = material(rng)
                protocol.got.clear()
                parts = pieces(rng, data)
                if rng.random() < 0.3:
                    transport.writelines(parts)
                else:
                    for part in parts:
                        transport.write(rng.choice((bytes, bytearray, memoryview))(part))
                        await protocol.may_write.wait()
                await protocol.received(len(data))
                compare(protocol.got, data)
            ending = rng.choice(("abort", "close", "eof"))
            if ending == "eof" and transport.can_write_eof():
                transport.write(b"the end")
                transport.write_eof()
                await protocol.lost.wait()
                if not protocol.got.endswith(b"the end"):
                    raise Wrong("what was written before the end of file did not come back")
            elif ending == "close":
                transport.close()
                await protocol.lost.wait()
        finally:
            await protocol.gone()

    return conversation


async def resets(world: World, rng: random.Random) -> None:
    """Sends a RST in the middle of the server's work."""
    protocol = Client(world.loop)
    transport = await connected(world, rng.choice(("tcp", "buffered", "streams")), protocol)
    try:
        transport.write(material(rng))
        if rng.random() < 0.5:
            await protocol.received(1)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    finally:
        await protocol.gone()


async def stalls(world: World, rng: random.Random) -> None:
    """Sends without reading, so that both ends are full, and leaves."""
    protocol = Client(world.loop)
    transport = await connected(world, rng.choice(("tcp", "buffered", "streams")), protocol)
    try:
        transport.pause_reading()
        for _ in range(8):
            transport.write(bytes(65536))
        await asyncio.sleep(rng.uniform(0, 0.05))
        if protocol.got:
            raise Wrong("data arrived while reading was paused")
    finally:
        await protocol.gone()


async def streams(world: World, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection(*world.at["streams"])
    try:
        data = material(rng)
        for part in pieces(rng, data):
            writer.write(part)
            await writer.drain()
        compare(await reader.readexactly(len(data)), data)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def sockets(world: World, rng: random.Random) -> None:
    """Plain sockets, their receives timed out again and again."""
    loop = world.loop
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, world.at["tcp"])
        data = material(rng)
        # A socket is useless after a send was cancelled in the middle, so only the whole round is cancelled.
        sending = loop.create_task(_send(loop, sock, data))
        try:
            got = bytearray()
            while len(got) < len(data):
                try:
                    # asyncio itself loses bytes that arrive in the turn of the timeout.
                    limit = rng.choice((0, 0.0002, 0.002, None)) if not loops.REFERENCE else None
                    async with asyncio.timeout(limit):
                        got += await loop.sock_recv(sock, rng.choice((10_000, 65_536)))
                except TimeoutError:
                    continue
            compare(got, data)
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def _send(loop: Any, sock: socket.socket, data: bytes) -> None:
    await loop.sock_sendall(sock, data)


async def refused(world: World, rng: random.Random) -> None:
    """Connects to an address that refuses, and to one whose answer may come too late."""
    with peers.refusing() as address:
        try:
            await world.loop.create_connection(asyncio.Protocol, *address)
        except ConnectionRefusedError:
            return
        raise Wrong("connected where nobody listens")


async def hasty(world: World, rng: random.Random) -> None:
    """Connections given up before they are made."""
    protocols = [Client(world.loop) for _ in range(5)]
    tasks = [world.loop.create_task(connected(world, "tcp", protocol)) for protocol in protocols]
    try:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for protocol in protocols:
            await protocol.gone()


async def servers(world: World, rng: random.Random) -> None:
    """A server that comes and goes, with a connection to it."""
    # Start it separately: cancelling a create_server that already serves leaves a server that nothing refers
    # to.
    server = await world.loop.create_server(asyncio.Protocol, peers.LOOPBACK, 0, start_serving=False)
    protocol = Client(world.loop)
    try:
        await server.start_serving()
        await world.loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
        protocol.transport.write(b"to whom it may concern")
        await asyncio.sleep(rng.choice((0, 0.001)))
    finally:
        server.close()
        await protocol.gone()
        await server.wait_closed()


async def timers(world: World, rng: random.Random) -> None:
    loop = world.loop
    fired: list[tuple[float, float]] = []
    handles = []
    for _ in range(20):
        when = loop.time() + rng.uniform(-0.001, 0.02)
        handles.append(loop.call_at(when, lambda when=when: fired.append((when, loop.time()))))
    try:
        cancelled = rng.sample(handles, 8)
        for handle in cancelled:
            handle.cancel()
        await asyncio.sleep(max(0, max(handle.when() for handle in handles) - loop.time()) + 0.002)
        due = sorted(handle.when() for handle in handles if handle not in cancelled)
        # The last one may be late, and our own timer must not overtake any of them.
        if [when for when, _ in fired] != due:
            raise Wrong(f"timers fired at {fired}, due at {due}")
        early = [when - at for when, at in fired if at < when - 0.001]
        if early:
            raise Wrong(f"timers fired early, by {early} s")
    finally:
        for handle in handles:
            handle.cancel()


async def executor(world: World, rng: random.Random) -> None:
    data = material(rng)
    digest = await world.loop.run_in_executor(None, lambda: hashlib.sha256(data).digest())
    if digest != hashlib.sha256(data).digest():
        raise Wrong("another result than that of the function")


async def threads(world: World, rng: random.Random) -> None:
    """A thread schedules callbacks, and all of them arrive in order."""
    loop, seen = world.loop, []

    def call_in() -> None:
        for number in range(100):
            loop.call_soon_threadsafe(seen.append, number)

    await loop.run_in_executor(None, call_in)
    while len(seen) < 100:
        await asyncio.sleep(0)
    if seen != list(range(100)):
        raise Wrong(f"calls arrived as {seen}")


async def watches(world: World, rng: random.Random) -> None:
    loop, got = world.loop, bytearray()
    with peers.pair() as (near, far):
        writable, readable = loop.create_future(), loop.create_future()
        loop.add_writer(near, lambda: writable.done() or writable.set_result(None))
        loop.add_reader(far, lambda: readable.done() or readable.set_result(None))
        try:
            await writable
            data = material(rng)[:4096]
            near.send(data)
            await readable
            got += far.recv(8192)
            compare(got, data)
        finally:
            loop.remove_writer(near)
            loop.remove_reader(far)


async def datagrams(world: World, rng: random.Random) -> None:
    waiting = {b"%d:" % number + rng.randbytes(rng.randrange(1200)) for number in range(6)}
    done = world.loop.create_future()

    class Asker(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            if data not in waiting:
                done.set_exception(Wrong(f"a datagram that nobody sent: {data!r}"))
            waiting.discard(data)
            if not waiting and not done.done():
                done.set_result(None)

        def connection_lost(self, exc: BaseException | None) -> None:
            over.set()

    over = asyncio.Event()
    transport, _ = await world.loop.create_datagram_endpoint(Asker, remote_addr=world.at["udp"])
    try:
        for data in sorted(waiting):
            transport.sendto(data)
        await done
    finally:
        transport.abort()
        await over.wait()


async def upgrades(world: World, rng: random.Random) -> None:
    """A conversation that becomes TLS."""
    protocol = Client(world.loop)
    transport = await connected(world, "start_tls", protocol)
    try:
        transport.write(b"tls?")
        await protocol.received(2)
        try:
            transport = await world.loop.start_tls(
                transport, protocol, world.client_tls, server_hostname=tls.NAME
            )
        except BaseException:
            # Cancelled halfway: the protocol belongs to neither transport, and gets no connection_lost.
            protocol.lost.set()
            raise
        protocol.transport = transport
        data = material(rng)
        protocol.got.clear()
        transport.write(data)
        await protocol.received(len(data))
        compare(protocol.got, data)
    finally:
        await protocol.gone()


async def files(world: World, rng: random.Random) -> None:
    protocol = Client(world.loop)
    transport = await connected(world, "tcp", protocol)
    try:
        offset = rng.randrange(len(world.contents))
        with open(world.file, "rb") as file:
            count = await world.loop.sendfile(transport, file, offset)
        await protocol.received(count)
        compare(protocol.got, world.contents[offset:])
    finally:
        await protocol.gone()


async def subprocesses(world: World, rng: random.Random) -> None:
    data = material(rng)
    async with world.processes:
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            if rng.random() < 0.3:
                process.stdin.write(data)
                process.kill()
            else:
                compare((await process.communicate(data))[0], data)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # asyncio reports the exit when the pipes have ended too, and a full pipe is not read by itself.
            await process.stdout.read()
            await process.wait()
            process._transport.close()


async def pipes(world: World, rng: random.Random) -> None:
    protocol, writer = Client(world.loop), None
    reading, writing = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    ended = asyncio.Event()

    class Writer(asyncio.BaseProtocol):
        def connection_lost(self, exc: BaseException | None) -> None:
            ended.set()

    try:
        await world.loop.connect_read_pipe(lambda: protocol, reading)
        writer, _ = await world.loop.connect_write_pipe(Writer, writing)
        data = material(rng)
        writer.write(data)
        writer.write_eof()
        await protocol.lost.wait()
        compare(protocol.got, data)
    finally:
        if writer is not None and not ended.is_set():
            writer.abort()
            await ended.wait()
        if protocol.transport is not None:
            protocol.transport.close()
            await protocol.lost.wait()
        reading.close()
        writing.close()


Activity = Callable[[World, random.Random], Awaitable[None]]

# name: (its share of the rounds, the activity)
TABLE: dict[str, tuple[int, Activity]] = {
    "tcp echo": (12, echo("tcp")),
    "buffered echo": (8, echo("buffered")),
    "unix echo": (8, echo("unix")),
    "tls echo": (6, echo("tls")),
    "start_tls": (3, upgrades),
    "streams": (8, streams),
    "sockets": (8, sockets),
    "resets": (6, resets),
    "stalls": (3, stalls),
    "refused": (3, refused),
    "hasty": (4, hasty),
    "servers": (3, servers),
    "timers": (5, timers),
    "executor": (4, executor),
    "threads": (3, threads),
    "watches": (6, watches),
    "datagrams": (6, datagrams),
    "sendfile": (3, files),
    "subprocesses": (1, subprocesses),
    "pipes": (3, pipes),
}
