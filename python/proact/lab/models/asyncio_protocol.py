"""The same asyncio protocol on every event loop: asyncio's own, uvloop, rloop, and proact on each engine.

What runs here per message is the loop's transport and the three lines of ``data_received``; the rest is the
loop, which is what is compared.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from typing import Any, NoReturn, cast

from proact.lab.models import BACKLOG


class Echo(asyncio.Protocol):
    """Writes back what it receives; stops reading while the peer does not take what was written."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's and rloop's transports are not asyncio's, but act as theirs.
        self.transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


def new_loop(package: str, engine: str | None) -> Any:
    """An event loop of ``package``; ``engine`` names proact's engine (None for the others)."""
    factory = importlib.import_module(package).new_event_loop
    return factory() if engine is None else factory(engine=engine)


def serve(listener: socket.socket, package: str, engine: str | None = None) -> NoReturn:
    """Serve on a loop of ``package`` until the process is killed."""
    listener.setblocking(False)
    loop = new_loop(package, engine)
    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(loop.create_server(Echo, sock=listener, backlog=BACKLOG))
    loop.run_forever()
    raise RuntimeError(f"the loop stopped by itself, with {server!r}")
