"""Owns: the loop's `sock_*` that wait for one event of a socket, as Python 3.14 shows them.

Each is an awaitable object of the native side. Python 3.14 brings tools that show where a task waits
(`python -m asyncio ps`, `pstree`, `asyncio.capture_call_graph`), and these see nothing but coroutines. So
from 3.14 on each is a coroutine around that object, as asyncio's own are. This costs 0.1 to 0.2 µs a call.
"""

from __future__ import annotations

import sys

from . import _core

TYPE_CHECKING = False

if TYPE_CHECKING:
    import socket
    from typing import Any

__all__ = ["Sockets"]


class _Operations(_core.Scheduler):
    def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> _core.Operation[tuple[bytes, Any]]:
        """Receive a datagram; return its bytes, at most `bufsize`, and its sender."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        return self._sock_when_readable(sock, lambda: sock.recvfrom(bufsize))

    def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> _core.Operation[tuple[int, Any]]:
        """Receive at most `nbytes` (0: the buffer's size) of a datagram; return its length and its sender."""
        size = nbytes or len(buf)
        with memoryview(buf) as room:
            if room.readonly:
                raise TypeError("a read-write bytes-like object is required")
            if not 0 <= size <= room.nbytes:
                raise ValueError("nbytes must be 0 to the size of the buffer")
        return self._sock_when_readable(sock, lambda: sock.recvfrom_into(buf, size))

    def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> _core.Operation[int]:
        """Send a datagram to `address`; return the number of bytes sent."""
        return self._sock_when_writable(sock, lambda: sock.sendto(data, address))


if TYPE_CHECKING or sys.version_info < (3, 14):
    Sockets = _Operations
else:

    class Sockets(_Operations):
        """The same as coroutines."""

        async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
            """Receive up to `n` bytes; empty at the end of the stream."""
            return await _Operations.sock_recv(self, sock, n)

        async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
            """Receive into a buffer; return the number of bytes."""
            return await _Operations.sock_recv_into(self, sock, buf)

        async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
            """Send all of `data`."""
            return await _Operations.sock_sendall(self, sock, data)

        async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
            """Receive a datagram; return its bytes, at most `bufsize`, and its sender."""
            return await _Operations.sock_recvfrom(self, sock, bufsize)

        async def sock_recvfrom_into(self, sock: socket.socket, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
            """Receive at most `nbytes` of a datagram; return its length and its sender."""
            return await _Operations.sock_recvfrom_into(self, sock, buf, nbytes)

        async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
            """Send a datagram to `address`; return the number of bytes sent."""
            return await _Operations.sock_sendto(self, sock, data, address)
