"""The servers that the soak's rounds talk to; all of them echo, and read no faster than they can write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

from support import peers, tls


class Echo(asyncio.Protocol):
    """Reads no faster than it can write."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class BufferedEcho(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(20_000))

    connection_made = Echo.connection_made
    pause_writing = Echo.pause_writing
    resume_writing = Echo.resume_writing

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


class Upgrading(Echo):
    """Says "go", and from then on speaks TLS."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.upgrading: asyncio.Task[None] | None = None
        # The bytes that come through TLS before `start_tls` has returned the transport for the answer.
        self.early: list[bytes] | None = []

    def data_received(self, data: bytes) -> None:
        if self.upgrading is not None and self.early is not None:
            self.early.append(data)
        elif self.upgrading is None:
            self.upgrading = asyncio.get_running_loop().create_task(self.upgrade(self.transport))
            self.transport.write(b"go")
        else:
            self.transport.write(data)

    async def upgrade(self, transport: Any) -> None:
        # The peer may have gone, or go, at any time: the soak does that on purpose.
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
            upgraded = await asyncio.get_running_loop().start_tls(
                transport, self, self.world.server_tls, server_side=True
            )
            if upgraded is None:
                return
            self.transport = upgraded
            early, self.early = self.early or [], None
            upgraded.writelines(early)


class DatagramEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


async def stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class World(contextlib.AsyncExitStack):
    """Opens a server of each kind; `at` has their addresses."""

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self.loop = loop
        self.at: dict[str, Any] = {}
        self.processes = asyncio.Semaphore(3)
        self.server_tls: Any = tls.server_context()
        self.client_tls: Any = tls.client_context()

    async def __aenter__(self) -> World:
        loop = self.loop
        directory = self.enter_context(tempfile.TemporaryDirectory())
        self.file = Path(directory, "file")
        self.contents = peers.payload(300_000)
        self.file.write_bytes(self.contents)
        unix = os.path.join(directory, "socket")
        local = (peers.LOOPBACK, 0)
        await self.serve("tcp", loop.create_server(Echo, *local))
        await self.serve("buffered", loop.create_server(BufferedEcho, *local))
        await self.serve("streams", asyncio.start_server(stream_echo, *local))
        await self.serve("unix", loop.create_unix_server(Echo, unix))
        await self.serve("tls", loop.create_server(Echo, *local, ssl=self.server_tls))
        await self.serve("start_tls", loop.create_server(lambda: Upgrading(self), *local))
        transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=local)
        self.at["udp"] = transport.get_extra_info("sockname")
        self.callback(transport.close)
        return self

    async def serve(self, name: str, starting: Any) -> None:
        server = await starting
        self.at[name] = server.sockets[0].getsockname()
        self.push_async_callback(self.stop, server)

    async def stop(self, server: Any) -> None:
        server.close()
        await server.wait_closed()

    def connect(self, kind: str, factory: Any) -> Any:
        """A connection to the server of this kind."""
        if kind == "unix":
            return self.loop.create_unix_connection(factory, self.at["unix"])
        options = {"ssl": self.client_tls, "server_hostname": tls.NAME} if kind == "tls" else {}
        return self.loop.create_connection(factory, *self.at[kind], **options)
