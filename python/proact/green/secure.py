"""Owns: TLS over green sockets. OpenSSL uses the fd itself, and the greenlet waits where OpenSSL would have
to.
"""

from __future__ import annotations

import socket as _socket
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _core
from .sockets import Waits, connect, socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["SSLSocket", "wrap_socket"]

_T = TypeVar("_T")


def _nothing() -> None:
    pass


def _refuses_once() -> Callable[[], None]:
    """A call for `green_when` to wait by. It tries a write before it waits, and OpenSSL has tried already."""
    calls = iter((True,))

    def attempt() -> None:
        if next(calls, False):
            raise BlockingIOError

    return attempt


class SSLSocket(Waits, ssl.SSLSocket):
    """`ssl.SSLSocket` on which a greenlet waits instead of its thread; `wrap_socket` makes it."""

    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool

    def settimeout(self, value: float | None) -> None:
        """Seconds that each call waits at most; None: for ever; 0: calls do not wait."""
        super().settimeout(value)
        # What OpenSSL's callbacks see: they never wait.
        _socket.socket.settimeout(self, 0)

    def _retried(self, method: Callable[..., _T], *args: Any) -> _T:
        if self._timeout == 0:
            return method(self, *args)
        result: _T = self._limited(SSLSocket._retry, method, *args)
        return result

    def _retry(self, method: Callable[..., _T], *args: Any) -> _T:
        while True:
            try:
                return method(self, *args)
            except ssl.SSLWantReadError:
                _core.green_when(self, False, _nothing)
            except ssl.SSLWantWriteError:
                _core.green_when(self, True, _refuses_once())

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> Any:
        """Read up to `len` bytes, or into a buffer."""
        return self._retried(ssl.SSLSocket.read, len, buffer)

    def write(self, data: ReadableBuffer) -> int:
        """Write some of `data`; return the number of bytes."""
        return self._retried(ssl.SSLSocket.write, data)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send some of `data`; return the number of bytes."""
        return self._retried(ssl.SSLSocket.send, data, flags)

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        self._retried(ssl.SSLSocket.do_handshake, block)

    def unwrap(self) -> Any:
        """End TLS; return the socket below, a green one."""
        self._retried(ssl.SSLSocket.unwrap)
        below = socket(self.family, self.type, self.proto, fileno=self.detach())
        below.settimeout(self._timeout)
        return below

    def accept(self) -> tuple[Self, Any]:
        """Accept a connection and shake hands; return it, and the address of the peer."""
        fd, address = self._when(False, _socket.socket._accept)  # type: ignore[attr-defined]
        accepted = socket(self.family, self.type, self.proto, fileno=fd)
        wrapped = wrap_socket(
            accepted,
            self.context,
            server_side=True,
            do_handshake_on_connect=self.do_handshake_on_connect,
            suppress_ragged_eofs=self.suppress_ragged_eofs,
        )
        return wrapped, address  # type: ignore[return-value]

    def connect(self, address: Any) -> None:
        """Connect, and shake hands."""
        plain = socket(self.family, self.type, self.proto, fileno=_socket.socket.detach(self))
        plain.settimeout(self._timeout)
        try:
            plain._limited(connect, address)
            _socket.socket.__init__(self, plain.family, plain.type, plain.proto, fileno=plain.detach())
        except BaseException:
            plain.close()
            raise
        self.settimeout(plain.gettimeout())
        self._sslobj = self.context._wrap_socket(  # type: ignore[attr-defined]
            self,
            False,
            self.server_hostname,
            owner=self,
            session=self._session,  # type: ignore[attr-defined]
        )
        self._connected = True
        if self.do_handshake_on_connect:
            self.do_handshake()


def wrap_socket(
    sock: _socket.socket,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    session: ssl.SSLSession | None = None,
) -> SSLSocket:
    """TLS over a socket, as `context.wrap_socket(sock, ...)`, for greenlets. It takes the fd over."""
    made: SSLSocket = SSLSocket._create(  # type: ignore[attr-defined]
        sock=sock,
        server_side=server_side,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=suppress_ragged_eofs,
        server_hostname=server_hostname,
        context=context,
        session=session,
    )
    made.do_handshake_on_connect = do_handshake_on_connect
    try:
        if do_handshake_on_connect and made._connected:
            if made.gettimeout() == 0:
                raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
            made.do_handshake()
    except BaseException:
        made.close()
        raise
    return made
