"""Owns: asyncio's stream readers with native methods.

A reader of `asyncio.open_connection` or `start_server` becomes one of these when its connection opens. Its
state stays behind asyncio's attributes, so that asyncio's own methods and those of the program find it there.
"""

from __future__ import annotations

import asyncio
from functools import partial
from operator import attrgetter

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

__all__ = ["adopt"]

# A program, or a tool that observes it, may put methods of its own in their place, before this module is
# imported or later.
_METHODS = (
    *(
        (asyncio.StreamReader, name)
        for name in (
            "feed_data",
            "read",
            "readexactly",
            "readuntil",
            "readline",
            "_wait_for_data",
            "_wakeup_waiter",
        )
    ),
    (asyncio.StreamReaderProtocol, "data_received"),
    (asyncio.StreamReaderProtocol, "_drain_helper"),
    (asyncio.StreamWriter, "drain"),
    (asyncio.StreamWriter, "write"),
)


class _Methods:
    """Those of asyncio's classes as they were last seen."""

    seen: tuple[Any, ...] = ()
    are_asyncios = False


def _are_asyncios() -> bool:
    """Whether all of the methods are asyncio's own."""
    methods = tuple([getattr(kind, name) for kind, name in _METHODS])
    if methods != _Methods.seen:
        _Methods.seen = methods
        _Methods.are_asyncios = all(
            getattr(method, "__globals__", None) is vars(asyncio.streams)
            and method.__code__.co_qualname.rpartition(".")[2] == name
            for method, (_, name) in zip(methods, _METHODS, strict=True)
        )
    return _Methods.are_asyncios


# asyncio's attributes of a reader, which the native state has without the underscore.
_ATTRIBUTES = ("_buffer", "_eof", "_paused", "_limit", "_waiter", "_exception", "_transport")


class StreamReader(asyncio.StreamReader):
    """`asyncio.StreamReader`; `_core.install_streams` gives it its methods."""

    _native: _core.StreamState


class StreamWriter(asyncio.StreamWriter):
    """`asyncio.StreamWriter` of a server's connection, with native `write` and `drain`."""

    _native: _core.WriterState

    async def start_tls(self, *arguments: Any, **keywords: Any) -> None:
        """Go on over TLS, as asyncio's own writer: the native state knows the transport of before."""
        self.__class__ = asyncio.StreamWriter  # type: ignore[assignment]  # its base
        await self.start_tls(*arguments, **keywords)


class StreamReaderProtocol(asyncio.StreamReaderProtocol):
    """`asyncio.StreamReaderProtocol`, whose `data_received` a native transport does not call."""

    _paused: bool
    _connection_lost: bool

    def _drain_helper(self) -> Awaitable[None]:
        if self._paused or self._connection_lost:
            return super()._drain_helper()  # type: ignore[misc,no-any-return]  # typeshed leaves it out
        return _NOTHING


_NOTHING = _core.Nothing()


def _attribute(name: str) -> property:
    def set_it(self: StreamReader, value: Any) -> None:
        setattr(self._native, name, value)

    return property(attrgetter(f"_native.{name}"), set_it)


for _name in _ATTRIBUTES:
    setattr(StreamReader, _name, _attribute(_name[1:]))
StreamReader.__module__ = asyncio.StreamReader.__module__
StreamWriter.__module__ = asyncio.StreamWriter.__module__
StreamReaderProtocol.__module__ = asyncio.StreamReaderProtocol.__module__
_core.install_streams(
    (StreamReader, asyncio.StreamReader), (StreamWriter, asyncio.StreamWriter), StreamReaderProtocol
)


def adopt(protocol: Any) -> None:
    """Give the reader of a `StreamReaderProtocol` its native methods, if all of it is asyncio's own."""
    reader = protocol._stream_reader
    kind = type(reader)
    if (
        kind is asyncio.StreamReader
        and type(reader._limit) in (int, float)
        and isinstance(reader._loop, _core.Scheduler)
        and _are_asyncios()
    ):
        known = {name: getattr(reader, name) for name in _ATTRIBUTES}
        reader._native = _core.StreamState(reader._loop, reader._buffer, reader._limit)
        reader.__class__ = StreamReader
        for name, value in known.items():
            setattr(reader, name, value)
        protocol.__class__ = StreamReaderProtocol
        if protocol._client_connected_cb is not None:
            protocol._client_connected_cb = partial(_connected, protocol._client_connected_cb)


def _connected(callback: Callable[[Any, Any], Any], reader: Any, writer: Any) -> Any:
    """Call a server's callback with a writer that has its native method."""
    kind, transport = type(writer), writer.transport
    if kind is asyncio.StreamWriter and _are_asyncios() and isinstance(transport, _core.StreamTransport):
        writer._native = _core.WriterState(reader._native, transport)
        writer.__class__ = StreamWriter
    return callback(reader, writer)
