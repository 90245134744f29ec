"""Owns: the echo servers under test, each in a separate process: `python -m benchmarks.servers
'{"contender": ...}'`.

There is one server for each style of asyncio, written as a user would write it, for all loops. It writes its
port to standard output and then serves until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any, cast

from benchmarks import children, contenders, tls_load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

BACKLOG = 4096
CHUNK = 65536
"""The most that streams and sock_recv ask for, in bytes; also the size of BufferedEcho's buffer."""


class Echo(asyncio.Protocol):
    """`protocol`: callbacks, one `bytes` for each receive."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


HEADER = 100
"""The first bytes of a message, which `pieces` and `writelines` send separately, like a server's header."""


class PiecesEcho(Echo):
    """`pieces`: writes the echo in two pieces."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:HEADER])
        self.transport.write(data[HEADER:])


class WritelinesEcho(Echo):
    """`writelines`: writes the echo in two pieces, in one call."""

    def data_received(self, data: bytes) -> None:
        self.transport.writelines((data[:HEADER], data[HEADER:]))


class SlimEcho(asyncio.Protocol):
    """`slim`: acts like `protocol`, in an object of known size, for counting memory."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


SLIM_BYTES = -(-sys.getsizeof(SlimEcho()) // 16) * 16
"""The heap memory of one object, with the collector's header: pymalloc gives multiples of 16 bytes."""


class DatagramEcho(asyncio.DatagramProtocol):
    """`udp`: one callback per datagram."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


class BufferedEcho(asyncio.BufferedProtocol):
    """`buffered`: the loop receives into this protocol's own buffer, and what goes back is copied out of
    it.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(CHUNK))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`streams`: one coroutine per connection."""
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the load has ended
    finally:
        writer.close()


async def echo_sock(connection: socket.socket) -> None:
    """`sock`: one coroutine per connection, no transport."""
    loop = asyncio.get_running_loop()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := await loop.sock_recv(connection, CHUNK):
                await loop.sock_sendall(connection, data)
        except ConnectionError:
            pass  # the load has ended


async def serve_protocol(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=BACKLOG)


async def serve_pieces(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_server(PiecesEcho, sock=listener, backlog=BACKLOG)


async def serve_writelines(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_server(WritelinesEcho, sock=listener, backlog=BACKLOG)


async def serve_slim(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_server(SlimEcho, sock=listener, backlog=BACKLOG)


async def serve_tls(listener: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls_load.CERTIFICATES / "server.pem")
    await asyncio.get_running_loop().create_server(Echo, sock=listener, backlog=BACKLOG, ssl=context)


async def serve_unix(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_unix_server(Echo, sock=listener, backlog=BACKLOG)


async def serve_udp(sock: socket.socket) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(DatagramEcho, sock=sock)


async def serve_buffered(listener: socket.socket) -> None:
    await asyncio.get_running_loop().create_server(BufferedEcho, sock=listener, backlog=BACKLOG)


async def serve_streams(listener: socket.socket) -> None:
    await asyncio.start_server(echo_stream, sock=listener, backlog=BACKLOG)


async def serve_sock(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            task = loop.create_task(echo_sock(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    tasks.add(loop.create_task(accept()))


async def serve_green(listener: socket.socket) -> None:
    """Only for proact's loops: plain code in greenlets, on the loop that this coroutine runs on."""
    from proact import green

    def echo(connection: green.socket) -> None:
        with connection:
            while data := connection.recv(CHUNK):
                connection.sendall(data)

    def accept() -> None:
        with green.socket(fileno=listener.detach()) as accepting:
            while True:
                connection, _ = accepting.accept()
                green.spawn(echo, connection)

    green.spawn(accept)


def tcp_listener() -> socket.socket:
    """A socket whose protocol is named, not 0: only then asyncio sets TCP_NODELAY on accepted sockets."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener


def unix_listener() -> socket.socket:
    """Under an abstract name: nothing is left in the file system when the server is killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0proact-benchmarks-{os.getpid()}")
    listener.listen(BACKLOG)
    return listener


def udp_socket() -> socket.socket:
    """A socket with room for a datagram of every client, because a lost datagram is not sent again."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    return sock


def address(listener: socket.socket) -> dict[str, Any]:
    """The address for the load: a port, or the name of a Unix socket."""
    name = listener.getsockname()
    return {"path": name.decode()} if listener.family == socket.AF_UNIX else {"port": name[1]}


LISTENERS = {"unix": unix_listener, "udp": udp_socket}
"""The socket of each style that does not serve on TCP."""

STYLES: dict[str, Callable[[socket.socket], Coroutine[Any, Any, None]]] = {
    "protocol": serve_protocol,
    "pieces": serve_pieces,
    "writelines": serve_writelines,
    "slim": serve_slim,
    "tls": serve_tls,
    "unix": serve_unix,
    "udp": serve_udp,
    "buffered": serve_buffered,
    "streams": serve_streams,
    "sock": serve_sock,
    "green": serve_green,
}


def serve_on_loop(
    contender: str, listener: socket.socket, start: Callable[[socket.socket], Awaitable[None]]
) -> None:
    """Serve on this contender's loop for ever."""
    loop = contenders.new_loop(contender)
    asyncio.set_event_loop(loop)
    listener.setblocking(False)
    where = address(listener)  # some loops take the socket over, and then it has no address

    async def serve() -> None:
        await start(listener)
        children.say(where | {"protocol_bytes": SLIM_BYTES})
        await loop.create_future()

    loop.run_until_complete(serve())


def serve_bare(contender: str) -> None:
    """Serve without Python: this is the ceiling."""
    from proact import _core

    listener = tcp_listener()
    children.say(address(listener))
    _core.bare_server(contender.removeprefix("bare-"), listener.fileno())


def main() -> None:
    settings = children.begin(children.SERVER_CORE)
    if settings["contender"] in contenders.BARE:
        serve_bare(settings["contender"])
    else:
        listener = LISTENERS.get(settings["style"], tcp_listener)()
        serve_on_loop(settings["contender"], listener, STYLES[settings["style"]])


if __name__ == "__main__":
    main()
