"""HTTP/1.1 on one connection: requests in, responses out. It does not know what is served.

httptools parses. Requests are small here; a request that is too large, or not complete in time, ends the
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

#: Bytes of a request, headers and body together.
LARGEST: Final = 64 << 10

#: The seconds within which a request has to be complete, or the next one has to begin.
PATIENCE: Final = 60.0

#: Headers of every response: no page may frame it, and no browser guesses its type or caches it.
_ALWAYS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RefusedError(Exception):
    """The reason to answer a request with an error: the status, and one line that says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request; header names in lower case."""

    method: str = ""
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True


@dataclass(slots=True)
class Response:
    """One response: its body, or its events, which continue until they end or the client leaves."""

    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    events: AsyncGenerator[str, None] | None = None


def text(status: HTTPStatus, line: str) -> Response:
    """A line for a person."""
    return Response(f"{line}\n".encode(), status=status)


class Connection:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        # By name, because httptools is optional and the type checker may not have it.
        self._parser: Any = importlib.import_module("httptools").HttpRequestParser(self)
        self._incoming, self._url = Request(), b""
        self._ready: list[Request] = []
        self._size = 0

    async def request(self) -> Request | None:
        """The next request; None once the client has closed its side. Raises RefusedError."""
        while not self._ready:
            try:
                async with asyncio.timeout(PATIENCE):
                    data = await self._reader.read(LARGEST)
            except TimeoutError:
                return None
            if not data:
                return None
            self._size += len(data)
            try:
                self._parser.feed_data(data)
            except Exception as error:  # httptools has a dozen kinds; each says that this is no HTTP
                raise RefusedError(HTTPStatus.BAD_REQUEST, f"this is no HTTP: {error}") from None
            if self._size > LARGEST:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {LARGEST} bytes")
        self._size = 0
        return self._ready.pop(0)

    async def respond(self, response: Response, *, keep_alive: bool) -> None:
        """Send a response with a body."""
        headers = {
            "Content-Length": str(len(response.body)),
            "Connection": "keep-alive" if keep_alive else "close",
        }
        self._writer.write(_head(response, headers) + response.body)
        await self._writer.drain()

    async def stream(self, response: Response) -> None:
        """Send server-sent events until they end or the client has gone. The connection is over then."""
        assert response.events is not None
        self._writer.write(_head(response, {"Connection": "close"}))
        await self._writer.drain()
        sending = asyncio.create_task(self._send(response.events))
        leaving = asyncio.create_task(self._reader.read(1))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, events: AsyncGenerator[str, None]) -> None:
        async with contextlib.aclosing(events):
            async for event in events:
                self._writer.write(event.encode())
                await self._writer.drain()

    def on_message_begin(self) -> None:
        """Called by the parser when a request begins."""
        self._incoming, self._url = Request(), b""

    def on_url(self, url: bytes) -> None:
        """Called by the parser with a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser with a header. Repeated headers are joined, so that every check here refuses
        them.
        """
        key, said = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._incoming.headers.get(key)
        self._incoming.headers[key] = said if before is None else f"{before}, {said}"

    def on_body(self, data: bytes) -> None:
        """Called by the parser with a piece of the body."""
        self._incoming.body += data

    def on_message_complete(self) -> None:
        """Called by the parser when a request is complete."""
        self._incoming.method = self._parser.get_method().decode("latin-1")
        path, _, query = self._url.decode("latin-1").partition("?")
        self._incoming.path, self._incoming.query = path, dict(parse_qsl(query))
        self._incoming.keep_alive = self._parser.should_keep_alive()
        self._ready.append(self._incoming)


def _head(response: Response, more: dict[str, str]) -> bytes:
    headers = {"Content-Type": response.content_type, **_ALWAYS, **response.headers, **more}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n{lines}\r\n".encode("latin-1")
