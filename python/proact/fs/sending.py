"""Owns: `sendfile`, from a file of `open` to a socket."""

from __future__ import annotations

import asyncio
import inspect
import io
import socket
from typing import Any

__all__ = ["sendfile"]


async def sendfile(
    out: asyncio.StreamWriter | asyncio.WriteTransport | socket.socket,
    file: Any,
    offset: int = 0,
    count: int | None = None,
) -> int:
    """Send `count` bytes of a file from `offset` on, or all to its end; the number of bytes sent.

    `file` is what `open` gives, a blocking binary file, or an fd; its position stays where it was if it is
    one of `open`. `out` is a stream, a transport, or a non-blocking socket. The bytes don't pass through
    Python where the kernel can send them by itself (not through TLS). Raises what `loop.sendfile` and
    `loop.sock_sendfile` raise.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(file, int):
        flushed = file.flush()
        if inspect.isawaitable(flushed):
            await flushed
    with io.FileIO(file if isinstance(file, int) else file.fileno(), "rb", closefd=False) as plain:
        if isinstance(out, socket.socket):
            return await loop.sock_sendfile(out, plain, offset, count)
        if isinstance(out, asyncio.StreamWriter):
            await out.drain()
            out = out.transport
        return await loop.sendfile(out, plain, offset, count)
