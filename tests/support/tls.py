"""TLS for tests: contexts, plain peers that speak TLS in a thread, and an end in memory that holds the bytes.

The certificates lie in tests/certificates, with the script that made them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from . import peers
from .protocols import serving

CERTIFICATES = Path(__file__).resolve().parent.parent / "certificates"
NAME = "localhost"


def server_context(certificate: str = "server", clients: bool = False) -> ssl.SSLContext:
    """A context for a server; with `clients` it demands a certificate of each client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CERTIFICATES / "authority.pem")
    return context


def client_context(certificate: str | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A context for a client that trusts the test authority."""
    context = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    if certificate:
        context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
    if version:
        context.maximum_version = context.minimum_version = version
    return context


@contextlib.asynccontextmanager
async def connected(
    loop: Any,
    near: Callable[[], Any],
    far: Callable[[], Any],
    server: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """A client and its server's side over TLS, both as protocols; closed at the end."""
    async with serving(loop, far, ssl=server or server_context()) as served:
        _, protocol = await loop.create_connection(
            near, *served.address, ssl=client or client_context(), server_hostname=NAME, **options
        )
        try:
            yield protocol, await served.accepted()
        finally:
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost


@contextlib.contextmanager
def peer(conversation: Callable[[ssl.SSLSocket], object], **options: Any) -> Iterator[tuple[str, int]]:
    """Run a blocking TLS server for one connection in a thread; yields its address. Errors fail the test."""
    context = options.pop("context", None) or server_context()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(peers.PATIENCE)
        with context.wrap_socket(connection, server_side=True, **options) as secured:
            conversation(secured)

    with peers.listening(blocking=True) as listener:
        listener.settimeout(peers.PATIENCE)
        with peers.thread(serve, listener):
            yield listener.getsockname()


@contextlib.asynccontextmanager
async def facing(
    loop: Any,
    make: Callable[[], Any],
    conversation: Callable[[ssl.SSLSocket], object],
    context: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
    options: dict[str, Any] | None = None,
    **connect: Any,
) -> AsyncIterator[Any]:
    """A protocol on the loop whose peer is a blocking TLS server in a thread."""
    with peer(conversation, context=context, **(options or {})) as address:
        _, protocol = await loop.create_connection(
            make, *address, ssl=client or client_context(), server_hostname=NAME, **connect
        )
        try:
            yield protocol
        finally:
            if not protocol.lost.done():
                protocol.transport.abort()
                await protocol.lost


class Engine:
    """The other end in memory: the test moves the bytes itself, record by record."""

    def __init__(self, server_side: bool = False, context: ssl.SSLContext | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or (server_context() if server_side else client_context())
        name = None if server_side else NAME
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side, name)

    def encrypt(self, data: bytes) -> bytes:
        view = memoryview(data)
        while view:
            view = view[self.session.write(view) :]
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        """Our close_notify, as bytes to be sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        return self.outgoing.read()

    def shake_hands(self, sock: socket.socket) -> None:
        """Make the whole handshake over `sock`. It blocks."""
        sock.settimeout(peers.PATIENCE)
        while True:
            try:
                self.session.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(self.outgoing.read())
                received = sock.recv(65536)
                if not received:
                    raise EOFError("the peer left in the handshake") from None
                self.incoming.write(received)
        sock.sendall(self.outgoing.read())
