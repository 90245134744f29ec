"""TLS: what happens once a connection, before the native transport takes over.

Checks the arguments as asyncio does, makes the session (Python's own `ssl` between two memory buffers), and
puts it over a connection that exists already.
"""

from __future__ import annotations

import asyncio
from asyncio import constants, transports
from typing import TYPE_CHECKING, Any

from . import _core

if TYPE_CHECKING:
    import ssl

    from .loop import EventLoop

    class _FlowControlMixin: ...

    class _StreamReader(asyncio.StreamReader):
        _buffer: bytearray
        _paused: bool
        _transport: Any

    class _StreamReaderProtocol(asyncio.StreamReaderProtocol):
        _stream_reader: _StreamReader | None

else:
    from asyncio.streams import StreamReaderProtocol as _StreamReaderProtocol
    from asyncio.transports import _FlowControlMixin

__all__ = ["SSLTransport", "over", "upgrade"]


class SSLTransport(_FlowControlMixin, transports.Transport):
    """What `isinstance` sees of a native TLS transport."""


def _seconds(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    if given <= 0:
        raise ValueError(f"{name} should be a positive number, got {given}")
    return given


def _default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    """For `ssl=True`, which only a client may say."""
    if server_side:
        raise ValueError("Server side SSL needs a valid SSLContext")
    import ssl

    context = ssl.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


def over(
    loop: _core.Scheduler,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext | None,
    waiter: asyncio.Future[None] | None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    call_connection_made: bool = True,
    received: bytes = b"",
    writing_paused: bool = False,
) -> _core.TLSTransport:
    """A TLS transport for `protocol`, to be made the protocol of the transport below; timeouts in seconds.

    `received`: what has come from the peer already; `writing_paused`: the transport below is full.
    Raises ValueError for a timeout that is not positive, and for a server without a context.
    """
    import ssl

    handshake = _seconds("ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
    shutdown = _seconds("ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
    context = sslcontext or _default_context(server_side, server_hostname)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(received)
    name = None if server_side else server_hostname or None
    session = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=name)
    return _core.TLSTransport(
        loop,
        protocol,
        (session, incoming, outgoing),
        waiter,
        {"sslcontext": context},
        (handshake, shutdown),
        call_connection_made,
        writing_paused,
    )


def _check(transport: Any, sslcontext: object) -> None:
    """What `start_tls` refuses, with a TypeError."""
    import ssl

    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")


async def upgrade(
    loop: EventLoop,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool,
    **options: Any,
) -> _core.TLSTransport | None:
    """A TLS transport over `transport`, with which `protocol` goes on; None if the connection has ended.

    `options` are those of `over`. Raises TypeError for what can't be upgraded, and what the handshake raises.
    """
    _check(transport, sslcontext)
    reader = protocol._stream_reader if isinstance(protocol, _StreamReaderProtocol) else None
    # What a client says first may have come with its last plain line. A server says nothing first: what a
    # client has from it is plain, whoever sent it.
    early = reader if server_side else None
    waiter: asyncio.Future[None] = loop.create_future()
    upgraded = over(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side=server_side,
        call_connection_made=False,
        received=bytes(early._buffer) if early else b"",
        writing_paused=getattr(transport, "_protocol_paused", False),
        **options,
    )
    # Nothing may arrive between the two: what the peer says next is its half of the handshake.
    transport.pause_reading()
    transport.set_protocol(upgraded)
    if early:
        early._buffer.clear()
        early._paused = False  # it may have held the transport back
    begin = loop.call_soon(upgraded.connection_made, transport)
    resume = loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        begin.cancel()
        resume.cancel()
        transport.close()
        raise
    if reader and reader._transport is transport:
        reader._transport = upgraded
    return None if upgraded._is_lost else upgraded
