"""Owns: benches of what programs do on a loop: a database driver's requests, WebSockets, gRPC.

Of WebSockets and gRPC both ends are in the one loop, so that the CPU time is all of a message's. The
libraries are the ones that run on any loop of asyncio's (grpcio brings a loop of its own).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from benchmarks import children

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PACKAGES = {"websockets": "websockets", "grpc": "grpclib"}
"""What a bench needs, by its name."""
MESSAGE = bytes(range(256)) * 4
CONNECTIONS = 16
EACH = 50
"""Requests of each connection in a pass."""
PATIENCE = 30.0

_opened: dict[object, Any] = {}


def missing(bench: str) -> list[str]:
    """The packages of a bench that are missing here."""
    package = PACKAGES.get(bench)
    return [package] if package and importlib.util.find_spec(package) is None else []


async def once(opens: Callable[[], Awaitable[Any]]) -> Any:
    """What `opens` returns, made in the first pass."""
    if opens not in _opened:
        _opened[opens] = await opens()
    return _opened[opens]


async def in_turn(ask: Callable[[Any], Awaitable[None]], connections: list[Any]) -> int:
    """Each connection asks, and asks again when it has its answer."""

    async def asking(connection: Any) -> None:
        for _ in range(EACH):
            await ask(connection)

    await asyncio.gather(*map(asking, connections))
    return EACH * len(connections)


class Driver(asyncio.Protocol):
    """The client of a database, by and large: a request is written, a future waits for all of the answer."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.answered.set_result(None)

    async def ask(self) -> None:
        self.answered: asyncio.Future[None] = self.loop.create_future()
        self.missing = len(MESSAGE)
        self.transport.write(MESSAGE)
        await self.answered


async def open_drivers() -> list[Driver]:
    """Connect to a server without Python, on the other core, which ends with this process."""
    settings = {"contender": "bare-epoll", "style": "protocol", "core": children.LOAD_CORE}
    ends = contextlib.ExitStack()
    server = ends.enter_context(children.child("benchmarks.servers", settings))
    _opened["server"] = ends
    port = children.hear(server, PATIENCE)["port"]
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(Driver, "127.0.0.1", port) for _ in range(CONNECTIONS)]
    return [driver for _, driver in opened]


async def requests() -> int:
    return await in_turn(Driver.ask, await once(open_drivers))


async def open_websockets() -> list[Any]:
    connect: Any = importlib.import_module("websockets.asyncio.client").connect
    serve: Any = importlib.import_module("websockets.asyncio.server").serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    server = await serve(echo, "127.0.0.1", 0, compression=None)
    _opened["websockets"] = server
    port = next(iter(server.sockets)).getsockname()[1]
    return [await connect(f"ws://127.0.0.1:{port}", compression=None) for _ in range(CONNECTIONS)]


async def ask_websocket(connection: Any) -> None:
    await connection.send(MESSAGE)
    if await connection.recv() != MESSAGE:
        raise RuntimeError("an echo is not what was sent")


async def websockets() -> int:
    return await in_turn(ask_websocket, await once(open_websockets))


async def open_grpc() -> list[Any]:
    client, const, server_module = (
        importlib.import_module(f"grpclib.{name}") for name in ("client", "const", "server")
    )

    class Bytes:
        """No serialisation: it would be the same on every loop."""

        __content_subtype__ = "bytes"

        def encode(self, message: Any, message_type: Any) -> bytes:
            return bytes(message)

        def decode(self, data: bytes, message_type: Any) -> Any:
            return data

    class Echo:
        def __mapping__(self) -> dict[str, Any]:
            async def echo(stream: Any) -> None:
                await stream.send_message(await stream.recv_message())

            return {"/bench.Echo/Echo": const.Handler(echo, const.Cardinality.UNARY_UNARY, bytes, bytes)}

    server = server_module.Server([Echo()], codec=Bytes())
    await server.start("127.0.0.1", 0)
    _opened["grpc"] = server
    port = server._server.sockets[0].getsockname()[1]
    channels = [client.Channel("127.0.0.1", port, codec=Bytes()) for _ in range(CONNECTIONS)]
    return [client.UnaryUnaryMethod(channel, "/bench.Echo/Echo", bytes, bytes) for channel in channels]


async def ask_grpc(method: Any) -> None:
    if await method(MESSAGE) != MESSAGE:
        raise RuntimeError("an echo is not what was sent")


async def grpc() -> int:
    return await in_turn(ask_grpc, await once(open_grpc))


async def close() -> None:
    """End what the passes have opened."""
    for connection in _opened.pop(open_drivers, ()):
        connection.transport.abort()
    for connection in _opened.pop(open_websockets, ()):
        await connection.close()
    for method in _opened.pop(open_grpc, ()):
        method.channel.close()
    for name in ("websockets", "grpc"):
        if server := _opened.pop(name, None):
            server.close()
            await server.wait_closed()
    if server := _opened.pop("server", None):
        server.close()
