"""Owns: how a connection goes from one loop to another, each in its own thread (`EventLoop.hand_over`).

The transport leaves its loop (`core/asyncio/transport/leaving.rs`). Its socket, and what was already taken
from it, go to the other loop's thread, and a new transport goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import EventLoop

    class _StreamReader(asyncio.StreamReader):
        _buffer: bytearray
        _paused: bool

    class _StreamReaderProtocol(asyncio.StreamReaderProtocol):
        _stream_reader: _StreamReader | None

    # What is kept, whether the peer ended its side, whether this side ended, whether reading is paused.
    _Kept = tuple[list[bytes | None], bool, bool, bool]
    _Left = tuple[int, asyncio.BaseProtocol, dict[str, Any] | None, list[bytes | None], bool, bool, bool]
    _Factory = Callable[[], asyncio.BaseProtocol]
    _Connection = tuple[_core.StreamTransport, asyncio.BaseProtocol]

else:
    from asyncio.streams import StreamReaderProtocol as _StreamReaderProtocol

__all__ = ["hand_over"]


class Guest:
    """A connection on its way to a loop that counts them, or there (`serve_threads` waits for its end).

    It stands in the place of a server, which the transport tells of its end.
    """

    def __init__(self, guests: set[Guest]) -> None:
        self._guests = guests
        self.transport: _core.StreamTransport | None = None
        guests.add(self)

    def _attach(self, transport: object = None) -> None:
        """The transport begins."""

    def _detach(self, transport: object = None) -> None:
        self._guests.discard(self)

    def abort(self) -> None:
        """End the connection now."""
        if self.transport is not None:
            self.transport.abort()


class _Move:
    """A connection on its way. The loop that it leaves calls `left`, the loop that it goes to `made`."""

    def __init__(self, source: EventLoop, target: EventLoop, factory: _Factory | None) -> None:
        self._source = source
        self._target = target
        self._factory = factory
        self.done: asyncio.Future[_Connection] = source.create_future()

    def left(self, what: _Left | None) -> None:
        if what is None:
            self._failed(ConnectionAbortedError("the connection ended before it was handed over"))
            return
        fd, protocol, extra, kept, ended, eof_written, paused = what
        try:
            sock = socket.socket(fileno=fd)
        except BaseException as error:
            os.close(fd)
            self._failed(error, protocol)
            return
        extra = {name: value for name, value in (extra or {}).items() if name != "socket"}
        if self._factory is not None:
            # If the old protocol has heard of the end, the new one hears of it by a receive of its own.
            ended = None in kept
            if reader := _reader(protocol):
                kept[:0] = _unread(reader)
                # Where it is the reader that has paused, nobody else would resume.
                paused = paused and not reader._paused
        guests = self._target._guests
        guest = None if guests is None else Guest(guests)
        arrival = _Arrival(self, guest, sock, protocol, extra, (kept, ended, eof_written, paused))
        try:
            self._target.call_soon_threadsafe(arrival.arrive)
        except RuntimeError as error:
            arrival.fail(error)
        if self._factory is not None:
            protocol.connection_lost(None)

    def made(
        self, arrival: _Arrival, sock: socket.socket, protocol: asyncio.BaseProtocol, extra: Any, kept: _Kept
    ) -> None:
        """Goes on in the other loop's thread."""
        if self._factory is not None:
            protocol = self._factory()
        guest = arrival.guest
        transport = self._target._make_socket_transport(sock, protocol, extra=extra, server=guest)
        transport._begin_with(*kept)
        if guest is not None:
            guest.transport = transport
        # After connection_made, which comes in the next turn.
        self._target.call_soon(arrival.settle, (transport, protocol))

    def arrived(self, connection: _Connection) -> None:
        """The other loop has taken the connection."""
        self._tell(self._arrived, connection)

    def fail(self, protocol: asyncio.BaseProtocol, error: BaseException) -> None:
        """The other loop could not take the connection. Any thread may call this."""
        if isinstance(error, StopIteration):
            # A future can't hold it.
            error = RuntimeError(f"the protocol factory raised {error!r}")
        self._tell(self._failed, error, None if self._factory is not None else protocol)

    def _tell(self, method: Callable[..., None], *args: object) -> None:
        # If the loop is closed, nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._source.call_soon_threadsafe(method, *args)

    def _arrived(self, connection: _Connection) -> None:
        if not self.done.done():
            self.done.set_result(connection)

    def _failed(self, error: BaseException, protocol: asyncio.BaseProtocol | None = None) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        if protocol is not None:
            protocol.connection_lost(error if isinstance(error, Exception) else None)


class _Arrival:
    """What goes to the other loop.

    If that loop closes before it gets there, the connection is closed and the waiter is told.
    """

    def __init__(
        self,
        move: _Move,
        guest: Guest | None,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any] | None,
        kept: _Kept,
    ) -> None:
        self._move: _Move | None = move
        self.guest = guest
        self._rest = sock, protocol, extra, kept

    def arrive(self) -> None:
        if self._move is None:
            return
        try:
            self._move.made(self, *self._rest)
        except BaseException as error:
            self.fail(error)
            if not isinstance(error, Exception):
                raise

    def settle(self, connection: _Connection) -> None:
        move, self._move = self._move, None
        if move is not None:
            move.arrived(connection)

    def fail(self, error: BaseException) -> None:
        move, self._move = self._move, None
        if move is not None:
            sock, protocol, _, _ = self._rest
            sock.close()
            if self.guest is not None:
                self.guest._detach()
            move.fail(protocol, error)

    def __del__(self) -> None:
        self.fail(RuntimeError("the loop that the connection was handed to was closed"))


def _reader(protocol: asyncio.BaseProtocol) -> _StreamReader | None:
    return protocol._stream_reader if isinstance(protocol, _StreamReaderProtocol) else None


def _unread(reader: _StreamReader) -> list[bytes | None]:
    """Takes the bytes that a StreamReader has and nobody has read."""
    if not reader._buffer:
        return []
    unread = bytes(reader._buffer)
    reader._buffer.clear()
    return [unread]


def _check(source: EventLoop, transport: Any, target: EventLoop, factory: _Factory | None) -> None:
    if not isinstance(transport, _core.StreamTransport):
        raise TypeError(
            f"only a stream transport of proact can be handed over, not {type(transport).__name__}"
        )
    if transport._loop is not source:
        raise ValueError("the transport belongs to another loop")
    if asyncio._get_running_loop() is not source:
        raise RuntimeError("a connection is handed over by its own loop: await hand_over() there")
    if not isinstance(target, _core.Scheduler):
        raise TypeError(f"a connection can be handed to a loop of proact, not to {target!r}")
    if target is source:
        raise ValueError("the transport is in that loop already")
    if target.is_closed():
        raise RuntimeError("the loop that the connection is handed to is closed")
    protocol = transport.get_protocol()
    if isinstance(protocol, _core.TLSTransport):
        raise TypeError("a TLS connection can't be handed over; hand it over before the handshake")
    if factory is None and isinstance(protocol, _StreamReaderProtocol):
        raise TypeError("a StreamReader belongs to its loop: give a protocol_factory")


async def hand_over(
    source: EventLoop, transport: Any, target: EventLoop, protocol_factory: _Factory | None
) -> _Connection:
    """`EventLoop.hand_over`, which describes it."""
    _check(source, transport, target, protocol_factory)
    if transport.is_closing():
        # Whether the peer ended it just before or just after this call makes no difference to the caller.
        raise ConnectionAbortedError("the connection has ended")
    move = _Move(source, target, protocol_factory)
    transport._leave(move.left)
    try:
        return await move.done
    except asyncio.CancelledError:
        transport._stay()
        raise
