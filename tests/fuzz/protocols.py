"""The protocols of the near ends: each tells its link of every call. They decide nothing."""

from __future__ import annotations

import array
import asyncio
import ctypes
from typing import Any

BUFFERS = {
    "bytearray": lambda: bytearray(5000),
    "array": lambda: array.array("i", bytes(4000)),
    "ctypes": lambda: (ctypes.c_ubyte * 3000)(),
}


class Near(asyncio.Protocol):
    """A protocol that tells its link of every call."""

    def __init__(self, link: Any) -> None:
        self.link = link

    def connection_made(self, transport: Any) -> None:
        self.link.on_made(transport)

    def data_received(self, data: bytes) -> None:
        self.link.on_data(data)

    def eof_received(self) -> bool:
        return self.link.on_eof()

    def pause_writing(self) -> None:
        self.link.on_pause(True)

    def resume_writing(self) -> None:
        self.link.on_pause(False)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.link.on_lost(exc)


class BufferedNear(asyncio.BufferedProtocol):
    def __init__(self, link: Any, buffer: str) -> None:
        self.link = link
        self.buffer = BUFFERS[buffer]()

    connection_made = Near.connection_made
    eof_received = Near.eof_received
    pause_writing = Near.pause_writing
    resume_writing = Near.resume_writing
    connection_lost = Near.connection_lost

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.link.on_data(bytes(memoryview(self.buffer).cast("B")[:count]))


class StreamNear(asyncio.StreamReaderProtocol):
    """asyncio's own stream protocol, which also tells its link."""

    def __init__(self, link: Any, loop: Any) -> None:
        self.link = link
        self.reader = asyncio.StreamReader(limit=8192, loop=loop)
        super().__init__(self.reader, self._connected, loop=loop)

    def _connected(self, reader: Any, writer: Any) -> None:
        self.link.writer = writer

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.link.on_made(transport)

    def eof_received(self) -> Any:
        self.link.ended += 1
        keep = super().eof_received()
        self.link.closing |= not keep
        return keep

    def pause_writing(self) -> None:
        super().pause_writing()
        self.link.on_pause(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.link.on_pause(False)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.link.on_lost(exc)


def make(link: Any, kind: str) -> Any:
    """A new protocol for the link; "stream" makes it a link of streams."""
    if kind == "stream":
        link.kind = "stream"
        return StreamNear(link, link.world.loop)
    return Near(link) if kind == "plain" else BufferedNear(link, kind)
