"""A connection (TCP, Unix or TLS) whose near end is on the loop and whose far end is a blocking socket.

The far end sends and receives without a turn of the loop, so a test can look while the loop stands still.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

from . import peers, tls
from .protocols import Datagrams, Recorder


class Secured:
    """The peer of a TLS connection: a blocking socket, decrypted in memory."""

    def __init__(self, sock: socket.socket) -> None:
        context = tls.server_context()
        context.num_tickets = 0  # a process that ends before it has read a ticket resets the connection
        self.sock, self.engine = sock, tls.Engine(server_side=True, context=context)
        self.settimeout = sock.settimeout

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(self.engine.encrypt(data))

    def recv(self, count: int) -> bytes:
        while True:
            try:
                data = self.engine.session.read(count)
                if not data:
                    with contextlib.suppress(OSError):
                        self.sock.sendall(self.engine.goodbye())
                return data
            except ssl.SSLWantReadError:
                received = self.sock.recv(65536)
                if not received:
                    return b""
                self.engine.incoming.write(received)


@contextlib.asynccontextmanager
async def linked(loop: Any, kind: str, make: Callable[[], Any]) -> AsyncIterator[tuple[Any, Any]]:
    """A protocol over tcp, unix or tls whose peer is a plain blocking socket: (protocol, socket)."""
    with peers.pair() if kind == "unix" else peers.tcp_pair() as (near, far):
        far.settimeout(peers.PATIENCE / 2)
        options, shaking, peer = {}, None, far
        if kind == "tls":
            peer = Secured(far)
            shaking = loop.run_in_executor(None, peer.engine.shake_hands, far)
            options = {"ssl": tls.client_context(), "server_hostname": tls.NAME}
        _, client = await loop.create_connection(make, sock=near.dup(), **options)
        near.close()
        if shaking:
            await shaking
        try:
            yield client, peer
        finally:
            if not client.lost.done():
                client.transport.abort()
                await client.lost


@contextlib.asynccontextmanager
async def opened(
    loop: Any, kind: str, make: Callable[[Any], Any] = Recorder
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A protocol over a connection of this kind, and how its peer reads and writes: blocking functions."""
    if kind in ("tcp", "unix", "tls"):
        async with linked(loop, kind, lambda: make(loop)) as (protocol, peer):
            yield protocol, peer.recv, peer.sendall
        return
    if kind == "datagram":
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind((peers.LOOPBACK, 0))
            peer.settimeout(peers.PATIENCE)
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: Datagrams(loop), remote_addr=peer.getsockname()
            )
            address = transport.get_extra_info("sockname")
            yield protocol, peer.recv, lambda data: peer.sendto(data, address)
            transport.abort()
            await protocol.lost
        return
    ends = os.pipe()
    with io.FileIO(ends[kind == "read pipe"], "w" if kind == "read pipe" else "r") as peer:
        near = io.FileIO(ends[kind != "read pipe"], "r" if kind == "read pipe" else "w")
        connect = loop.connect_read_pipe if kind == "read pipe" else loop.connect_write_pipe
        transport, protocol = await connect(lambda: make(loop), near)
        yield protocol, peer.read, peer.write
        transport.close()
        await protocol.lost
