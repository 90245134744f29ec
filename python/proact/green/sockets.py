"""Owns: sockets on which a greenlet waits, with the interface of `socket.socket`.

The file itself never blocks. A receive waits until there is something and then takes it, in the greenlet that
asked: a greenlet that is killed in it has received nothing. So it may be shared with code that uses the fd.
`recv`, `recv_into`, `send` and `sendall` are native (`_core.Wire`) in the usual case.
"""

from __future__ import annotations

import contextlib
import errno
import socket as _socket
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .. import _core
from .bridge import await_
from .hub import hub_here
from .timeouts import limit_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from _typeshed import ReadableBuffer, WriteableBuffer

    from .hub import Hub

__all__ = ["Waits", "connect", "create_connection", "create_server", "getaddrinfo", "socket", "socketpair"]

_T = TypeVar("_T")

_plain = _socket.socket


class Waits(_plain):
    """What sockets share on which a greenlet waits: timeouts, and their end."""

    _hub: Hub | None = None
    _timeout: float | None = None

    # Timeouts.

    def settimeout(self, value: float | None) -> None:
        """Seconds that each call waits at most; None: for ever; 0: calls do not wait."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = None if value is None else float(value)

    def gettimeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Whether calls wait at all: `settimeout(None)`, or `settimeout(0)`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Whether calls wait."""
        return self._timeout != 0

    def _limited(self, call: Callable[..., _T], *args: Any) -> _T:
        """A call that has this socket's timeout."""
        if self._hub is None:
            self._hub = hub_here()
        if self._timeout is None:
            return call(self, *args)
        timer = limit_call(self._timeout)
        try:
            return call(self, *args)
        finally:
            timer.cancel()

    def _when(self, write: bool, method: Callable[..., _T], *args: Any) -> _T:
        attempt = partial(method, self, *args)
        if self._timeout == 0:
            return attempt()
        result: _T = self._limited(_core.green_when, write, attempt)
        return result

    # The end.

    def detach(self) -> int:
        """Give up the fd, and return it; what waits on it ends as if it was closed."""
        self._end_waits()
        return super().detach()

    def _real_close(self) -> None:
        self._end_waits()
        super()._real_close()  # type: ignore[misc]

    def _end_waits(self) -> None:
        hub = self._hub
        if hub is not None and self.fileno() >= 0:
            # A finaliser may run in any thread. Nothing waits on a socket that is being finalised.
            with contextlib.suppress(RuntimeError):
                if hub.loop.is_closed():
                    hub = hub_here()  # it was used in another loop before
                _core.green_close(hub.loop, self)


class _AtOnce:
    """The calls of a socket that never waits."""

    recv = staticmethod(_plain.recv)
    recv_into = staticmethod(_plain.recv_into)

    @staticmethod
    def sendall(sock: socket, data: ReadableBuffer) -> None:
        sock._send_pieces(data)


class socket(Waits):  # noqa: N801 the name that programs know
    """A socket on which a greenlet waits instead of its thread; otherwise `socket.socket`.

    Timeouts, `setblocking` and errors are those of `socket.socket`. If it is closed while greenlets wait on
    it, they get OSError with EBADF.
    """

    # A slot is found faster. What has `recv`, `recv_into` and `sendall`: the wire, or _AtOnce.
    __slots__ = ("_calls",)

    _calls: _core.Wire | type[_AtOnce]
    _wire: _core.Wire

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        super().__init__(family, type, proto, fileno)
        self._wire = self._calls = _core.Wire()
        self.settimeout(_socket.getdefaulttimeout())
        _plain.setblocking(self, False)

    def settimeout(self, value: float | None) -> None:
        """Seconds that each call waits at most; None: for ever; 0: calls do not wait."""
        super().settimeout(value)
        self._wire.seconds = value
        self._calls = _AtOnce if value == 0 else self._wire

    # Receiving.

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to `bufsize` bytes; empty at the end of the stream."""
        if flags:
            return self._when(False, _plain.recv, bufsize, flags)
        return self._calls.recv(self, bufsize)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; return the number of bytes."""
        if flags:
            return self._when(False, _plain.recv_into, buffer, nbytes, flags)
        if not nbytes:
            return self._calls.recv_into(self, buffer)
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if nbytes > len(view):
                raise ValueError("buffer too small for requested bytes")
            with view[:nbytes] as room:
                return self._calls.recv_into(self, room)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive a datagram; return its bytes and its sender."""
        return self._when(False, _plain.recvfrom, bufsize, flags)

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer; return its length and its sender."""
        return self._when(False, _plain.recvfrom_into, buffer, nbytes, flags)

    def recvmsg(self, *args: Any) -> Any:
        """As `socket.socket.recvmsg`."""
        return self._when(False, _plain.recvmsg, *args)

    def recvmsg_into(self, *args: Any) -> Any:
        """As `socket.socket.recvmsg_into`."""
        return self._when(False, _plain.recvmsg_into, *args)

    # Sending.

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send all of `data`."""
        if flags:
            return self._send_pieces(data, flags)
        return self._calls.sendall(self, data)

    def _send_pieces(self, data: ReadableBuffer, flags: int = 0) -> None:
        with memoryview(data) as whole, whole.cast("B") as view:
            sent = 0
            while sent < len(view):
                sent += self._when(True, _plain.send, view[sent:], flags)

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Send as much of `data` as the socket takes; return the number of bytes."""
        try:
            return _plain.send(self, data, flags)
        except BlockingIOError:
            if self._timeout == 0:
                raise
        return self._when(True, _plain.send, data, flags)

    # What the native methods leave over.
    _recv = recv
    _send = send
    _sendall = sendall

    def sendto(self, *args: Any) -> int:
        """Send a datagram: `data, address` or `data, flags, address`."""
        try:
            return _plain.sendto(self, *args)
        except BlockingIOError:
            if self._timeout == 0:
                raise
        return self._when(True, _plain.sendto, *args)

    def sendmsg(self, *args: Any) -> int:
        """As `socket.socket.sendmsg`."""
        try:
            return _plain.sendmsg(self, *args)
        except BlockingIOError:
            if self._timeout == 0:
                raise
        return self._when(True, _plain.sendmsg, *args)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file; return the number of bytes."""
        sent: int = self._sendfile_use_send(file, offset, count)  # type: ignore[attr-defined]  # CPython's own
        return sent

    # Connections.

    def accept(self) -> tuple[Self, Any]:
        """Accept a connection: a green socket, and the address of the peer."""
        fd, address = self._when(False, _plain._accept)  # type: ignore[attr-defined]
        return type(self)(self.family, self.type, self.proto, fileno=fd), address

    def connect(self, address: Any, /) -> None:
        """Connect; a host name is looked up by a thread."""
        if self._timeout == 0:
            return super().connect(address)
        return self._limited(connect, address)

    def connect_ex(self, address: Any, /) -> int:
        """As `connect`, and return the errno of an OSError."""
        if self._timeout == 0:
            return super().connect_ex(address)
        try:
            self.connect(address)
        except TimeoutError:
            return errno.EAGAIN
        except OSError as error:
            if error.errno is None or isinstance(error, _socket.gaierror):
                raise
            return error.errno
        return 0

    # The end.

    def _end_waits(self) -> None:
        self._wire.close()
        super()._end_waits()

    def __del__(self) -> None:
        # Before the fd is closed: an engine may keep the file open for its watch.
        if (wire := getattr(self, "_wire", None)) is not None:
            wire.close()
        super().__del__()  # type: ignore[misc]  # CPython's, which the stubs leave out

    def dup(self) -> Self:
        """Another socket object of the same socket, with a fd of its own."""
        made = super().dup()
        made.settimeout(self._timeout)
        return made


_core.install_green_calls(socket)


def connect(sock: Waits, address: Any) -> None:
    """Connect a socket; a host name is looked up by a thread."""
    if sock.family in (_socket.AF_INET, _socket.AF_INET6):
        host, *_ = address
        if not _is_numeric(sock.family, host):
            found = getaddrinfo(host, address[1], sock.family, sock.type, sock.proto)
            address = found[0][4]
    while True:
        try:
            _core.green_connect(sock, address)
            return
        except BlockingIOError:
            # If the backlog of a Unix server is full, no poll tells when there is room.
            _core.green_sleep(0.001)


def _is_numeric(family: int, host: Any) -> bool:
    try:
        _socket.inet_pton(family, host)
    except (OSError, TypeError, UnicodeError):
        return False
    return True


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[Any]:
    """As `socket.getaddrinfo`, in a thread while the greenlet waits."""
    call = partial(_socket.getaddrinfo, host, port, family, type, proto, flags)
    return await_(hub_here().loop.run_in_executor(None, call))


def create_connection(
    address: tuple[str | None, int],
    timeout: Any = _socket._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to a host and port by TCP, as `socket.create_connection`."""
    host, port = address
    errors: list[Exception] = []
    for family, kind, proto, _, where in getaddrinfo(host, port, 0, _socket.SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, kind, proto)
            if timeout is not _socket._GLOBAL_DEFAULT_TIMEOUT:  # type: ignore[attr-defined]
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(where)
        except OSError as error:
            if not all_errors:
                errors.clear()
            errors.append(error)
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            errors.clear()
            return sock
    try:
        if not errors:
            raise OSError("getaddrinfo returns an empty list")
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[0]
    finally:
        errors.clear()


def create_server(address: Any, **options: Any) -> socket:
    """A listening TCP socket, with the arguments of `socket.create_server`."""
    made = _socket.create_server(address, **options)
    return socket(made.family, made.type, made.proto, fileno=made.detach())


def socketpair(*args: Any) -> tuple[socket, socket]:
    """Two connected sockets, with the arguments of `socket.socketpair`."""
    first, second = (
        socket(made.family, made.type, made.proto, fileno=made.detach()) for made in _socket.socketpair(*args)
    )
    return first, second
