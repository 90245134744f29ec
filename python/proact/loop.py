"""The event loop: asyncio's `BaseEventLoop` on proact's native scheduler.

Code that runs per callback or per packet is native (`_core.Scheduler` comes first in the order of
resolution). Code that runs once per connection or once per loop is inherited from asyncio. This file only
holds the hooks that join the two. What not every program needs is imported where it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
import socket
import subprocess
import sys
import threading
from asyncio import events
from asyncio.log import logger
from functools import partial
from weakref import WeakSet

from . import _core, choice, reports, signals, sockets

TYPE_CHECKING = False

if TYPE_CHECKING:
    import ssl
    from asyncio.base_events import Server
    from collections.abc import Callable
    from contextvars import Context
    from typing import Any, Self, TypeVar, TypeVarTuple

    from _typeshed import FileDescriptorLike

    from . import handover, subprocesses

    _Ts = TypeVarTuple("_Ts")

    _T = TypeVar(
        "_T",
        _core.StreamTransport,
        _core.DatagramTransport,
        _core.ReadPipeTransport,
        _core.WritePipeTransport,
    )
    _Native = _core.StreamTransport | _core.TLSTransport | _core.DatagramTransport | _core.PipeTransport

    # The private names of asyncio that this file uses, and that typeshed leaves out.

    def _check_ssl_socket(sock: socket.socket) -> None: ...
    def _set_nodelay(sock: socket.socket) -> None: ...

    class _FlowControlMixin(asyncio.Transport): ...

    class _Server(Server):
        _loop: EventLoop

        def _attach(self, transport: asyncio.BaseTransport) -> None: ...

    _UnixEventLoop = asyncio.SelectorEventLoop

else:
    from asyncio.base_events import Server as _Server
    from asyncio.base_events import _check_ssl_socket, _set_nodelay
    from asyncio.transports import _FlowControlMixin
    from asyncio.unix_events import _UnixSelectorEventLoop as _UnixEventLoop

__all__ = ["EventLoop"]

# Seconds until a connect to a Unix server whose backlog is full is tried again.
_BACKLOG_RETRY = 0.001

# Bytes of a file that are sent before other callbacks have their turn.
_FILE_PIECE = 256 * 1024

# Python 3.13 and later pass the transport to the server when it attaches or detaches; earlier ones don't.
_SERVER_TAKES_TRANSPORT = "transport" in inspect.signature(_Server._attach).parameters


def _count_clients(server: Any) -> None:
    """Have a server of Python 3.13 and later count its connections natively: its set of weak references takes
    100 bytes more for each. A free-threaded Python keeps asyncio's own set."""
    clients = getattr(server, "_clients", None)
    if isinstance(clients, WeakSet) and not clients and "t" not in sys.abiflags:
        server._clients = _core.Clients(clients)


class _ClosedByItsLoop(_Server):
    """asyncio's server; a `close` in another thread is handed on to the loop's.

    asyncio's own looks at its sockets and then drops them: two threads at once may both go on, and the second
    one fails. It also wakes its waiters by a call that does not wake the loop.
    """

    def close(self) -> None:
        loop = self._loop
        if loop._thread_id not in (None, threading.get_ident()):
            # A loop that has been closed meanwhile refuses: nothing else uses its server then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(super().close)
                return
        super().close()


_ClosedByItsLoop.__name__ = _Server.__name__  # in its repr


class _Transport(_FlowControlMixin):
    """The class that `isinstance(transport, asyncio.Transport)` sees for a native stream transport."""


class _SSLTransport(_FlowControlMixin):
    """The class that `isinstance` sees for a native TLS transport. CPython's tests want "ssl" in its name."""


class _DatagramTransport(asyncio.DatagramTransport, asyncio.Transport):
    """The class that `isinstance` sees for a native datagram transport: both bases, as asyncio's own has."""


class _ReadPipe(asyncio.ReadTransport):
    """The class that `isinstance` sees for a native transport that reads from a pipe."""


class _WritePipe(_FlowControlMixin, asyncio.WriteTransport):
    """The class that `isinstance` sees for a native transport that writes to a pipe."""


class _Late:
    """A protocol factory that is called later, once there is a socket to close if the factory fails."""

    def __init__(self, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._factory = factory
        self.protocol: asyncio.BaseProtocol | None = None

    def itself(self) -> Any:
        """What asyncio gets in place of a protocol: this object."""
        return self

    def make(self, sock: socket.socket) -> asyncio.BaseProtocol:
        """The protocol that will own ``sock``."""
        try:
            self.protocol = self._factory()
        except BaseException:
            # No transport exists that would close the socket.
            sock.close()
            raise
        return self.protocol


def _adopt_stream(protocol: asyncio.BaseProtocol) -> None:
    """Give the reader of a protocol of streams its native methods."""
    from . import streams

    streams.adopt(protocol)


class EventLoop(sockets.Sockets, reports.Reports):
    """An asyncio event loop on the named engine; `proact.new_event_loop` describes the names.

    A subclass may take keyword arguments of its own.
    """

    _info: dict[str, Any]

    _transport_class = _Transport
    _datagram_class = _DatagramTransport
    _tls_transport_class = _SSLTransport
    _read_pipe_class = _ReadPipe
    _write_pipe_class = _WritePipe
    _stream_protocol = asyncio.StreamReaderProtocol
    _adopt_stream = staticmethod(_adopt_stream)
    _buffered_protocol = asyncio.BufferedProtocol
    _set_running_loop = staticmethod(events._set_running_loop)
    _plain_socket = socket.socket
    _check_socket = staticmethod(_check_ssl_socket)
    _server_takes_transport = _SERVER_TAKES_TRANSPORT
    _hub: Any = None  # what `proact.green` keeps of the loop, once it has greenlets
    _guests: set[handover.Guest] | None = None  # connections handed to it, where `serve_threads` counts them
    _thread_id: int | None = None  # `__del__` and `__repr__` need it even if `__init__` fails halfway

    def __new__(cls, engine: str = "auto", *args: object, **kwargs: object) -> Self:
        self, info = choice.choose(engine, partial(_core.Scheduler.__new__, cls))
        self._info = info
        return self

    def __init__(self, engine: str = "auto", *, spin: float = 0.0) -> None:
        self._configure()
        asyncio.BaseEventLoop.__init__(self)
        self._listeners: dict[socket.socket, _core.Listener] = {}
        # Python 3.13 and later: maps a socket to the inode of the path that is removed with it.
        self._unix_server_sockets: dict[socket.socket, int] = {}
        self._fallbacks: set[str] = set()
        self._children: set[subprocesses.SubprocessTransport] = set()
        self._signals = signals.Signals(self)
        try:
            self._set_spin(spin)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = f"running={self.is_running()} closed={self.is_closed()} debug={self.get_debug()}"
        return f"<{type(self).__name__} engine={self.engine} {state}>"

    def engine_info(self) -> dict[str, Any]:
        """The engine that was chosen, why the others were not, and what the kernel offers to it.

        Keys: `chosen`, `requested`, `engines` (name: `available`, `reason`), `features` and `opcodes` (name:
        bool; of the ring, empty for other engines), `fallbacks` (a line for each thing done in another way).
        """
        features, opcodes = self._features()
        stats = self.stats()
        engines: dict[str, dict[str, Any]] = self._info["engines"]
        # Try the engines that were not tried when the loop was made.
        if missing := [name for name in _core.ENGINES if name not in engines and name != self.engine]:
            for name, failure in _core.probe_engines().items():
                if name in missing:
                    engines[name] = {"available": failure is None, "reason": failure}
        engines[self.engine] = {"available": True, "reason": None}
        return {
            "chosen": self.engine,
            "requested": self._info["requested"],
            "engines": {name: engines[name] for name in _core.ENGINES},
            "features": features,
            "opcodes": opcodes,
            "fallbacks": [*stats["fallbacks"], *sorted(self._fallbacks)],
        }

    def stats(self) -> dict[str, Any]:
        """Counters of the engine since the loop was made.

        Keys: `submitted`, `completed` (kind of op: count), `in_flight`, `in_flight_max` (ops), `syscalls`
        (made by the engine), `wait_seconds` (spent in the waiting call), `buffers` (into which a ring
        receives), `buffer_exhaustions`, `overflows`, `rebuilds` (of the epoll set, which remove a file that
        was closed while a duplicate of it lives), `fallbacks` (lines), `readers` (fds watched for the
        program), `handles` (callbacks ready or timed), `cancelled` (handles that will not be called),
        `slots` (ops whose owner and buffers are kept), `pooled` (ops that were handed to the native pool of
        threads), `pool`, `spin` and `files`.
        `pool`, the native threads that carry out what the engine can't do without blocking: `threads` (that
        exist), `busy` (of them), `queued` (ops that wait for a thread), `lost` (threads beside those, which
        hang in cancelled ops), `limit` (the most `threads`).
        `spin`: `limit` (the `spin` of `new_event_loop`), `spins` (waits that began with a spin), `paid`
        (spins in which something came), `skipped` (waits that slept at once, because spins did not pay),
        `seconds` (in spins).
        `files`, the calls and ops of `proact.fs` by the way that they went: `at_once` (within the call),
        `by_engine` (the ring, or the readiness of a pipe), `by_pool`. What was tried at once and was not
        carried out: `refused_by_file` (it would have waited for a disk), `refused_by_budget` (the turn of
        the loop has had many). The threads of Python beside them are counted by `proact.fs.threads()`.
        The counters leave out the loop's own wake-up socket.
        """
        stats: dict[str, Any] = super()._stats()
        stats["files"] = super()._file_counts()
        own = int(self._signals.is_open())
        stats["in_flight"] -= own
        stats["slots"] -= own
        stats["readers"] -= own
        return stats

    # Running and stopping.

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        self._check_closed()
        self._check_running()
        # Two threads may come this far. The second is refused before it changes what asyncio keeps of a run.
        before = self._take_over()
        try:
            with self._signals:
                super().run_forever()
        finally:
            self._let_go(before)

    def close(self) -> None:
        """End what is in flight and release the engine; idempotent."""
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        if self._hub is not None:
            self._hub.end()
        # An ExitStack runs its last callback first, and runs each one even if others raise.
        with contextlib.ExitStack() as steps:
            steps.callback(self._signals.close)
            for child in self._children:
                steps.callback(child.release)
            steps.callback(self._shutdown)
            steps.callback(super().close)
            self._signals.close_pair()

    def _idle(self) -> None:
        # Greenlets asked to be told: if they wait for each other, this would wait for ever.
        if self._hub is not None:
            self._hub.idle()

    # Watching file descriptors.

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call back whenever `fd` is readable (level triggered)."""
        self._add_watch(fd, False, callback, args)

    def remove_reader(self, fd: FileDescriptorLike) -> bool:
        """Stop watching for readability; return whether `fd` was watched."""
        return self._unwatch(fd, False)

    def add_writer(self, fd: FileDescriptorLike, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call back whenever `fd` is writable (level triggered)."""
        self._add_watch(fd, True, callback, args)

    def remove_writer(self, fd: FileDescriptorLike) -> bool:
        """Stop watching for writability; return whether `fd` was watched."""
        return self._unwatch(fd, True)

    def _popen(self) -> type[subprocess.Popen[bytes]]:
        """What starts a child, looked up each time, as asyncio does."""
        return subprocess.Popen

    def _add_watch(
        self, fd: FileDescriptorLike, write: bool, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        self._check_closed()
        handle: object
        if self.get_debug():
            handle = events.Handle(callback, args, self, None)
        else:
            handle = _core.Handle(callback, args)
        self._watch(fd, write, handle)

    # Sockets.

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection: a non-blocking socket and the peer's address."""

        def attempt() -> tuple[socket.socket, Any]:
            connection, address = sock.accept()
            connection.setblocking(False)
            return connection, address

        result: tuple[socket.socket, Any] = await self._sock_when_readable(sock, attempt)
        return result

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to `address`, resolving a host name first."""
        if self.get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            _, _, _, _, address = resolved[0]
        while True:
            try:
                return await self._sock_connect(sock, address)
            except BlockingIOError:
                # If the backlog of a Unix server is full, no poll tells when there is room.
                await asyncio.sleep(_BACKLOG_RETRY)

    # Sending files without a copy through Python.

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        fileno = _sendable(file)
        sent = 0
        try:
            while not count or sent < count:
                size = min(count - sent, _FILE_PIECE) if count else _FILE_PIECE
                attempt = partial(os.sendfile, sock.fileno(), fileno, offset + sent, size)
                piece = await self._sock_when_writable(sock, attempt)
                if piece == 0:
                    break
                sent += piece
                # If the socket takes every piece at once, other callbacks still need their turn.
                await asyncio.sleep(0)
        except OSError as error:
            if sent == 0:
                raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
            raise
        finally:
            _position(fileno, offset + sent)
        return sent

    async def _sendfile_native(
        self, transp: _core.StreamTransport, file: Any, offset: int, count: int | None
    ) -> int:
        self._check_sendfile_params(transp.get_extra_info("socket"), file, offset, count)
        fileno = _sendable(file)
        sending = transp._send_file(fileno, offset, count or 0)
        try:
            await sending.future
        except OSError as error:
            if isinstance(error, ConnectionError) or sending.sent:
                raise
            raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
        finally:
            transp._stop_file(sending)
            _position(fileno, offset + sending.sent)
        return sending.sent

    # A transport starts in the next turn, when the caller that made it already holds it.

    def _begin(self, transport: _T, waiter: asyncio.Future[None] | None) -> _T:
        self.call_soon(transport._start, waiter)
        return transport

    # Pipes and child processes.

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.ReadPipeTransport:
        return self._begin(_core.ReadPipeTransport(self, pipe, protocol, extra), waiter)

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.WritePipeTransport:
        return self._begin(_core.WritePipeTransport(self, pipe, protocol, extra), waiter)

    async def _make_subprocess_transport(
        self, protocol: asyncio.BaseProtocol, *args: Any, **kwargs: Any
    ) -> subprocesses.SubprocessTransport:
        from . import subprocesses

        return await subprocesses.spawn(self, protocol, *args, **kwargs)

    # Connections.

    async def _create_connection_transport(
        self,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        def factory() -> asyncio.BaseProtocol:
            try:
                return protocol_factory()
            except BaseException:
                # No transport exists that would close the socket.
                sock.close()
                raise

        return await super()._create_connection_transport(sock, factory, *args, **kwargs)

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol | _core.TLSTransport,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
    ) -> _core.StreamTransport:
        if context is not None:
            # Python 3.15 and later pass a context. A transport calls its protocol in the context in which it
            # was made, so make it in that one.
            return context.run(
                self._make_socket_transport, sock, protocol, waiter, extra=extra, server=server
            )
        _set_nodelay(sock)
        transport = _core.StreamTransport(self, sock, protocol, extra, server)
        _keep_open(sock)
        return self._begin(transport, waiter)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> Any:
        """Make a datagram transport and its protocol; the arguments are those that asyncio takes."""
        # If the factory fails, the socket has to be closed. asyncio calls the factory where it can't do that,
        # so `_make_datagram_transport` calls it instead.
        late = _Late(protocol_factory)
        transport, _ = await super().create_datagram_endpoint(late.itself, *args, **kwargs)
        return transport, late.protocol

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol | _Late,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> _core.DatagramTransport:
        if isinstance(protocol, _Late):
            protocol = protocol.make(sock)
        transport = _core.DatagramTransport(self, sock, protocol, address, extra)
        _keep_open(sock)
        return self._begin(transport, waiter)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Context | None = None,
    ) -> Any:
        from . import tls

        try:
            transport = tls.over(
                self,
                protocol,
                sslcontext,
                waiter,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
        except BaseException:
            # No transport exists that would close the socket.
            rawsock.close()
            raise
        self._make_socket_transport(rawsock, transport, extra=extra, server=server, context=context)
        return transport

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        """Upgrade a connection to TLS; return the transport that `protocol` uses from now on."""
        from . import tls

        return await tls.upgrade(
            self,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Context | None = None,
    ) -> None:
        _count_clients(server)
        if type(server) is _Server:
            server.__class__ = _ClosedByItsLoop
        adopt = None
        if sslcontext is not None:

            def adopt(fd: int, factory: Callable[[], asyncio.BaseProtocol]) -> None:
                connection = socket.socket(fileno=fd)
                try:
                    connection.setblocking(False)
                    self._make_ssl_transport(
                        connection,
                        factory(),
                        sslcontext,
                        server_side=True,
                        server=server,
                        ssl_handshake_timeout=ssl_handshake_timeout,
                        ssl_shutdown_timeout=ssl_shutdown_timeout,
                    )
                except BaseException:
                    connection.close()
                    raise

        make = partial(_core.Listener, self, sock, protocol_factory, server, adopt)
        listener = make() if context is None else context.run(make)
        listener.start()
        self._listeners[sock] = listener

    def _stop_serving(self, sock: socket.socket) -> None:
        if self._thread_id not in (None, threading.get_ident()):
            # Not a RuntimeError: `Server.close()` of asyncio has already dropped its sockets, so it would not
            # try again.
            self.call_soon_threadsafe(self._stop_serving, sock)
            return
        listener = self._listeners.pop(sock, None)
        inode = self._unix_server_sockets.pop(sock, None)
        # An ExitStack runs its last callback first, and runs each one even if others raise.
        with contextlib.ExitStack() as steps:
            # If the program has closed the socket, its path is no longer known.
            if inode is not None and sock.fileno() >= 0:
                steps.callback(self._remove_unix_path, sock.getsockname(), inode)
            steps.callback(sock.close)
            if listener is not None and not self.is_closed():
                listener.stop()

    async def hand_over(
        self,
        transport: asyncio.BaseTransport,
        loop: EventLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol] | None = None,
    ) -> tuple[_core.StreamTransport, asyncio.BaseProtocol]:
        """Move a connection to another loop, in another thread; return its new transport and protocol.

        To be awaited in this loop. `transport` is its stream transport, open and without TLS. What was
        written to it is sent first; what has arrived and was not delivered is delivered in the other loop, in
        its order. There the protocol gets `connection_made` with the new transport; it is not told that the
        old one ended. With a `protocol_factory`, called in the other thread, a new protocol takes its place,
        and the old one gets `connection_lost(None)`; bytes that a StreamReader still has go to the new
        protocol. Limits of the write buffer do not go along, and no server counts the connection any more
        (`serve_threads` does).

        The returned objects belong to the other thread. If this call is cancelled before the connection has
        left, it stays; after that it arrives all the same. Raises TypeError, ValueError and RuntimeError for
        arguments that don't fit (then nothing has changed), ConnectionAbortedError if the connection ends
        first, RuntimeError if the other loop is closed before the connection arrives, and what the factory
        raises.
        """
        from . import handover

        return await handover.hand_over(self, transport, loop, protocol_factory)

    # Unix sockets. asyncio's code that runs once per connection or server works on any loop.

    create_unix_connection = _UnixEventLoop.create_unix_connection
    create_unix_server = _UnixEventLoop.create_unix_server

    @staticmethod
    def _remove_unix_path(path: str, inode: int) -> None:
        from pathlib import Path  # a program without such a server starts faster

        try:
            if Path(path).stat().st_ino == inode:
                Path(path).unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.error("Unable to clean up listening UNIX socket %r: %r", path, error)

    # Signals.

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call back in the loop when the signal comes. Main thread only."""
        if _is_coroutine(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        signals.check(sig)
        self._check_closed()
        self._signals.add(sig, events.Handle(callback, args, self, None))

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore the default behaviour; return whether there was a handler."""
        signals.check(sig)
        return self._signals.remove(sig)


def _sendable(file: Any) -> int:
    """The fd of a file that sendfile(2) may be able to send."""
    try:
        fileno: int = file.fileno()
        os.fstat(fileno)
    except (AttributeError, io.UnsupportedOperation, OSError) as error:
        raise asyncio.SendfileNotAvailableError("not a regular file") from error
    return fileno


def _position(fileno: int, offset: int) -> None:
    """Leave a file where sendfile has stopped, also if nothing was sent."""
    with contextlib.suppress(OSError):  # a pipe has no position
        os.lseek(fileno, offset, os.SEEK_SET)


def _is_coroutine(callback: object) -> bool:
    return asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback)


def _keep_open(sock: Any) -> None:
    """Give the fd to a transport: from now on `sock.close()` does not free its number for another file."""
    sock._io_refs += 1
