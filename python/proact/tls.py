"""The part of TLS that runs once per connection, before the native transport takes over.

It checks the arguments as asyncio does, makes the session (Python's own `ssl` between two memory buffers),
and puts it over an existing connection.
"""

from __future__ import annotations

import asyncio
from asyncio import constants

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    import ssl
    from typing import Any

    from .loop import EventLoop

    class _StreamReader(asyncio.StreamReader):
        _buffer: bytearray
        _paused: bool
        _transport: Any

    class _StreamReaderProtocol(asyncio.StreamReaderProtocol):
        _stream_reader: _StreamReader | None

else:
    from asyncio.streams import StreamReaderProtocol as _StreamReaderProtocol

__all__ = ["over", "upgrade"]


def _seconds(name: str, given: float | None, default: float) -> float:
    if given is None:
        return default
    if given <= 0:
        raise ValueError(f"{name} should be a positive number, got {given}")
    return given


def _default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    """The context for `ssl=True`, which only a client may pass."""
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
    """A TLS transport for `protocol`. The caller sets it as the protocol of the transport below.

    Timeouts are in seconds. `received` holds the bytes that the peer has already sent; `writing_paused` says
    that the transport below is full. Raises ValueError for a timeout that is not positive, and for a server
    without a context.
    """
    import ssl

    handshake = _seconds("ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
    shutdown = _seconds("ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
    context = sslcontext or _default_context(server_side, server_hostname)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
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
        received or None,
    )


def _check(transport: Any, sslcontext: object) -> None:
    """Raise the errors of arguments that `start_tls` refuses."""
    import ssl

    if not isinstance(sslcontext, ssl.SSLContext):
        raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    if getattr(transport, "_is_leaving", False):
        raise RuntimeError("the transport is being handed over to another loop")


async def upgrade(
    loop: EventLoop,
    transport: Any,
    protocol: asyncio.BaseProtocol,
    sslcontext: ssl.SSLContext,
    *,
    server_side: bool,
    **options: Any,
) -> _core.TLSTransport | None:
    """Put TLS over `transport`; return the TLS transport that `protocol` uses from now on, or None if the
    connection has ended.

    `options` are passed to `over`. Raises TypeError for a transport that can't be upgraded, RuntimeError for
    one that leaves its loop, and the errors of the handshake.
    """
    _check(transport, sslcontext)
    reader = protocol._stream_reader if isinstance(protocol, _StreamReaderProtocol) else None
    # The first bytes of a client's handshake may have come together with its last plain line. A server never
    # begins the handshake, so bytes that a client has received are plain text, whoever sent them.
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
    # Nothing may arrive between these two steps: the next bytes of the peer are its half of the handshake.
    transport.pause_reading()
    transport.set_protocol(upgraded)
    if early:
        early._buffer.clear()
        early._paused = False  # the StreamReader may have paused the transport
    # Before the handshake: bytes that come with its end may fill the reader, which resumes what it paused.
    if reader and reader._transport is transport:
        reader._transport = upgraded
    begin = loop.call_soon(upgraded.connection_made, transport)
    resume = loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        begin.cancel()
        resume.cancel()
        if reader and reader._transport is upgraded:
            reader._transport = transport
        transport.close()
        del waiter  # it holds the exception, whose traceback holds this frame
        raise
    return None if upgraded._is_lost else upgraded
