"""Protocols that record the loop's calls, and servers and clients made from them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from . import peers


class Recorder(asyncio.Protocol):
    """Records every call in order, and lets a test wait for calls and data.

    `calls` holds the names of the called methods. A run of data_received is one entry, because the way TCP
    cuts the stream is not a behaviour of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.calls: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.made: asyncio.Future[Any] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._more: asyncio.Future[None] | None = None

    def call(self, name: str) -> None:
        if name != "data_received" or self.calls[-1:] != [name]:
            self.calls.append(name)

    def wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def connection_made(self, transport: Any) -> None:
        self.call("connection_made")
        self.transport = transport
        self.made.set_result(transport)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes and data, f"data_received got {data!r}"
        self.call("data_received")
        self.data += data
        self.wake()

    def eof_received(self) -> bool | None:
        self.call("eof_received")
        if not self.ended.done():
            self.ended.set_result(None)
        self.wake()
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.call("connection_lost")
        self.lost.set_result(exc)
        self.wake()

    def pause_writing(self) -> None:
        self.call("pause_writing")

    def resume_writing(self) -> None:
        self.call("resume_writing")

    async def received(self, count: int) -> bytes:
        """Wait until `count` bytes have come in all. Raises EOFError if they can't come any more."""
        while len(self.data) < count:
            if self.lost.done():
                raise EOFError(f"connection lost after {len(self.data)} of {count} bytes")
            self._more = self.loop.create_future()
            await self._more
        return bytes(self.data)

    async def close(self) -> BaseException | None:
        self.transport.close()
        return await self.lost


class HalfOpen(Recorder):
    """Keeps its sending side open after the peer's EOF."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


class Echo(Recorder):
    """Sends back the bytes that it gets."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class Buffered(asyncio.BufferedProtocol):
    """A Recorder that offers the loop its own buffer of `size` bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int = 65536) -> None:
        self.record = Recorder(loop)
        self.buffer = bytearray(size)
        self.lost = self.record.lost
        self.received = self.record.received

    @property
    def data(self) -> bytearray:
        return self.record.data

    @property
    def calls(self) -> list[str]:
        return self.record.calls

    @property
    def transport(self) -> Any:
        return self.record.transport

    def connection_made(self, transport: Any) -> None:
        self.record.connection_made(transport)

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.record.data_received(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> bool | None:
        return self.record.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.record.connection_lost(exc)

    async def close(self) -> BaseException | None:
        return await self.record.close()


class Server:
    """A listening server and the protocols of all the connections it has accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Any]) -> None:
        self.loop = loop
        self.make = make
        self.protocols: list[Any] = []
        self.server: Any = None
        self._waiting: list[tuple[int, asyncio.Future[Any]]] = []

    def factory(self) -> Any:
        protocol = self.make()
        self.protocols.append(protocol)
        for index, waiting in self._waiting:
            if index < len(self.protocols) and not waiting.done():
                waiting.set_result(None)
        return protocol

    @property
    def address(self) -> tuple[str, int]:
        return self.server.sockets[0].getsockname()[:2]

    async def accepted(self, index: int = 0) -> Any:
        """Wait for connection number `index`; return its protocol."""
        while len(self.protocols) <= index:
            waiting = self.loop.create_future()
            self._waiting.append((index, waiting))
            await waiting
        protocol = self.protocols[index]
        await getattr(protocol, "record", protocol).made
        return protocol


@contextlib.asynccontextmanager
async def serving(loop: Any, make: Callable[[], Any], **options: Any) -> AsyncIterator[Server]:
    """A server on loopback; at the end it is closed, and so is every connection that is still open."""
    served = Server(loop, make)
    served.server = await loop.create_server(served.factory, "127.0.0.1", 0, **options)
    try:
        yield served
    finally:
        served.server.close()
        for protocol in served.protocols:
            transport = getattr(protocol, "transport", None)
            if transport is not None and not protocol.lost.done():
                transport.abort()
                await protocol.lost
        await served.server.wait_closed()
        # The server holds our factory. A test that keeps this cycle would keep closed connections alive until
        # the
        # next collection.
        served.server = None


@contextlib.asynccontextmanager
async def connected(
    loop: Any, near: Callable[[], Any], far: Callable[[], Any], **options: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """A client and the server's side of its connection, both as protocols; closed at the end."""
    async with serving(loop, far, **options) as server:
        _, client = await loop.create_connection(near, *server.address)
        try:
            yield client, await server.accepted()
        finally:
            if not client.lost.done():
                client.transport.abort()
                await client.lost


async def heard(loop: Any, peer: Any, count: int | None = None) -> bytes:
    """Receive `count` bytes, or all, from a plain socket: in a thread, while the loop turns."""
    if count is None:
        return await loop.run_in_executor(None, peers.receive_all, peer)
    return await loop.run_in_executor(None, peers.receive, peer, count)


@contextlib.asynccontextmanager
async def facing(loop: Any, make: Callable[[], Any], **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A protocol whose peer is a plain blocking socket: (protocol, socket); both closed at the end."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, protocol = await loop.create_connection(make, *listener.getsockname(), **options)
        peer, _ = listener.accept()
    with peer:
        peer.settimeout(peers.PATIENCE)
        try:
            yield protocol, peer
        finally:
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost


class Datagrams(asyncio.DatagramProtocol):
    """Records every call in order, the datagrams that arrived, and the errors."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.calls: list[str] = []
        self.datagrams: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self._more: asyncio.Future[None] | None = None

    def call(self, name: str) -> None:
        if self.calls[-1:] != [name]:
            self.calls.append(name)

    def connection_made(self, transport: Any) -> None:
        self.call("connection_made")
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert type(data) is bytes
        self.call("datagram_received")
        self.datagrams.append((data, addr))
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def error_received(self, exc: Exception) -> None:
        self.call("error_received")
        self.errors.append(exc)

    def pause_writing(self) -> None:
        self.call("pause_writing")

    def resume_writing(self) -> None:
        self.call("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.call("connection_lost")
        self.lost.set_result(exc)

    async def received(self, count: int = 1) -> list[tuple[bytes, Any]]:
        """Wait until `count` datagrams have come in all."""
        while len(self.datagrams) < count:
            self._more = self.loop.create_future()
            await self._more
        return self.datagrams
