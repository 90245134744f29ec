"""Owns: what a loop reports.

The handles of debug mode, slow callbacks, and the errors that the native side hands over.
"""

from __future__ import annotations

from asyncio.log import logger

TYPE_CHECKING = False

if TYPE_CHECKING:
    import asyncio
    import socket
    from asyncio import events
    from collections.abc import Callable
    from contextvars import Context
    from traceback import StackSummary
    from typing import Any

    from . import _core

    _Native = _core.StreamTransport | _core.TLSTransport | _core.DatagramTransport | _core.PipeTransport

    # The private names of asyncio that the loop uses, and that typeshed leaves out.

    def _format_callback_source(func: object, args: tuple[Any, ...]) -> str: ...
    def _format_handle(handle: events.Handle) -> str: ...

    class _Handle(events.Handle):
        _source_traceback: StackSummary | None

    _ThreadSafeHandle = _Handle

    class _TimerHandle(events.TimerHandle):
        _source_traceback: StackSummary | None
        _scheduled: bool

    class _BaseEventLoop(asyncio.BaseEventLoop):
        _current_handle: events.Handle | None

        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _check_thread(self) -> None: ...
        def _check_callback(self, callback: object, method: str) -> None: ...
        def _check_sendfile_params(self, sock: Any, file: Any, offset: int, count: int | None) -> None: ...
        async def _ensure_resolved(
            self, address: Any, *, loop: asyncio.AbstractEventLoop, **hints: int
        ) -> list[tuple[int, int, int, str, Any]]: ...
        async def _create_connection_transport(
            self,
            sock: socket.socket,
            protocol_factory: Callable[[], asyncio.BaseProtocol],
            *args: Any,
            **kwargs: Any,
        ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]: ...

else:
    from asyncio import events
    from asyncio.base_events import BaseEventLoop as _BaseEventLoop
    from asyncio.base_events import _format_handle
    from asyncio.events import Handle as _Handle
    from asyncio.events import TimerHandle as _TimerHandle
    from asyncio.format_helpers import _format_callback_source

    # Python 3.14 and later: other threads wait while it runs.
    _ThreadSafeHandle = getattr(events, "_ThreadSafeHandle", _Handle)

__all__ = ["Reports"]


class Reports(_BaseEventLoop):
    """The part of the event loop that reports; the native side calls it (`core/reactor/hooks.rs`)."""

    # Debug mode uses asyncio's own handles, because they know where they were made.

    def _debug_handle(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        check_thread: bool,
    ) -> events.Handle:
        if check_thread:
            self._check_thread()
        self._check_callback(callback, "call_soon" if check_thread else "call_soon_threadsafe")
        make = _Handle if check_thread else _ThreadSafeHandle
        handle = make(callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1:]
        return handle

    def _debug_timer(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> events.TimerHandle:
        self._check_thread()
        self._check_callback(callback, "call_at")
        handle = _TimerHandle(when, callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1:]
        handle._scheduled = True
        return handle

    def _run_debug(self, handle: events.Handle) -> None:
        if handle._cancelled:
            return
        self._current_handle = handle
        try:
            begun = self.time()
            handle._run()
            took = self.time() - begun
            if took >= self.slow_callback_duration:
                self._took(_format_handle(handle), took)
        finally:
            self._current_handle = None

    def _took(self, what: object, seconds: float) -> None:
        if seconds >= self.slow_callback_duration:
            logger.warning("Executing %s took %.3f seconds", what, seconds)

    def _handshake_begins(self, transport: _core.TLSTransport) -> None:
        logger.debug("%r starts SSL handshake", transport)

    def _handshake_took(self, transport: _core.TLSTransport, seconds: float) -> None:
        logger.debug("%r: SSL handshake took %.1f ms", transport, seconds * 1000)

    # Reports from the native side.

    def _callback_failed(
        self, callback: Callable[..., object], args: tuple[Any, ...], error: BaseException, handle: object
    ) -> None:
        try:
            shown = _format_callback_source(callback, args)
        except Exception:
            shown = "?"
        self.call_exception_handler(
            {"message": f"Exception in callback {shown}", "exception": error, "handle": handle}
        )

    def _failed(self, message: str, error: BaseException) -> None:
        self.call_exception_handler({"message": message, "exception": error})

    def _transport_failed(self, transport: _Native, error: BaseException, message: str) -> None:
        if not isinstance(error, OSError):
            self._protocol_failed(transport, error, message)
        elif self.get_debug():
            logger.debug("%r: %s", transport, message, exc_info=error)

    def _protocol_failed(self, transport: _Native, error: BaseException, message: str) -> None:
        context = {"message": message, "exception": error}
        self.call_exception_handler({**context, "transport": transport, "protocol": transport.get_protocol()})

    def _accept_failed(self, error: BaseException, sock: socket.socket, retries: bool) -> None:
        message = "socket.accept() out of system resource" if retries else "Accept failed on a socket"
        from asyncio.trsock import TransportSocket

        self.call_exception_handler({"message": message, "exception": error, "socket": TransportSocket(sock)})

    def _connection_failed(self, error: BaseException) -> None:
        self._failed("Error on transport creation for incoming connection", error)
