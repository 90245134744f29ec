"""A web server: HTTP/1.1 with keep-alive and pipelining. ``GET /bytes/N`` gets N bytes, ``GET /`` a hint.

``httptools`` parses (nginx' and Node's rules, in C), for every model alike.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from proact.lab.workloads import Exchange
from proact.lab.workloads.session import Session

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

#: The largest answer, in bytes: the load keeps a copy for each size.
LARGEST: Final = 16 << 20


class Web(Session):
    """Answers requests in their order."""

    __slots__ = ("_parser", "_reply", "_target", "over")

    def __init__(self) -> None:
        # By name, because httptools is optional and the type checker may not have it.
        self._parser: Any = importlib.import_module("httptools").HttpRequestParser(self)
        self._reply = bytearray()
        self._target = b""
        self.over = False

    def feed(self, data: bytes) -> bytes:
        try:
            self._parser.feed_data(data)
        except Exception as error:  # httptools has a dozen kinds; each says that this is no HTTP
            self._reply += response(400, f"{error}\n".encode(), keep=False)
            self.over = True
        reply, self._reply = bytes(self._reply), bytearray()
        return reply

    def on_message_begin(self) -> None:
        """Called by the parser when a request begins."""
        self._target = b""

    def on_url(self, url: bytes) -> None:
        """Called by the parser with a piece of the target."""
        self._target += url

    def on_message_complete(self) -> None:
        """Called by the parser when a request is complete."""
        keep = self._parser.should_keep_alive()
        self._reply += self.respond(self._target, keep)
        self.over = self.over or not keep

    def respond(self, target: bytes, keep: bool) -> bytes:
        """The response to ``GET target``."""
        _, _, size = target.rpartition(b"/bytes/")
        if target.startswith(b"/bytes/") and size.isdigit() and int(size) <= LARGEST:
            return content(int(size), keep)
        if target == b"/":  # a person tries this first
            return response(200, b"GET /bytes/N answers N bytes\n", keep)
        return response(404, b"there is only /bytes/N\n", keep)


def response(status: int, body: bytes, keep: bool) -> bytes:
    """A whole response."""
    phrase = {200: b"OK", 400: b"Bad Request", 404: b"Not Found"}[status]
    return (
        b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n"
        % (status, phrase, len(body), b"keep-alive" if keep else b"close")
    ) + body


@lru_cache(maxsize=64)
def content(size: int, keep: bool) -> bytes:
    """The response of ``size`` bytes."""
    return response(200, counted(size), keep)


@lru_cache(maxsize=64)
def counted(size: int) -> bytes:
    """``size`` bytes of lines that count, so that a shifted byte is found."""
    return b"".join(b"%015x\n" % number for number in range(size // 16 + 1))[:size]


def sessions() -> Sessions:
    """A parser for each connection."""
    return Web


def request(target: str) -> bytes:
    """The request that a client sends for ``target``."""
    return f"GET {target} HTTP/1.1\r\nHost: proact.lab\r\n\r\n".encode()


def exchange(size: int) -> Exchange:
    """``GET /bytes/size``."""
    return Exchange(request(f"/bytes/{size}"), content(size, keep=True))
