"""Owns: the HTTP servers under test, each in a separate process: `python -m benchmarks.web '{"contender":
..., "app": ...}'`. They are real servers, started as a user would, on a loop of each contender.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from benchmarks import children
from benchmarks.servers import BACKLOG, serve_on_loop, tcp_listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine

    from aiohttp import web

BODIES = {"plaintext": b"Hello, World!", "10KiB": b"0123456789abcdef" * 640}
PACKAGES = {"uvicorn": ("uvicorn", "httptools"), "aiohttp": ("aiohttp",)}


def missing(server: str) -> list[str]:
    """The packages of a server that are missing here."""
    return [name for name in PACKAGES[server] if importlib.util.find_spec(name) is None]


def asgi(body: bytes) -> Callable[..., Awaitable[None]]:
    """The smallest ASGI application that answers with this body."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))],
    }
    rest = {"type": "http.response.body", "body": body}

    async def application(
        scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> None:
        await send(start)
        await send(rest)

    return application


async def serve_uvicorn(body: bytes, listener: socket.socket) -> None:
    import asyncio

    import uvicorn

    config = uvicorn.Config(
        asgi(body), http="httptools", lifespan="off", log_config=None, access_log=False, backlog=BACKLOG
    )
    server = uvicorn.Server(config)
    KEPT.append(asyncio.get_running_loop().create_task(server.serve(sockets=[listener])))


async def serve_aiohttp(body: bytes, listener: socket.socket) -> None:
    # From 3.15 on, aiohttp would use aiofastnet's server instead of the loop's, so all loops would be equal.
    sys.modules["aiofastnet"] = None  # type: ignore[assignment]
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    KEPT.append(runner)
    await web.SockSite(runner, listener, backlog=BACKLOG).start()


KEPT: list[object] = []
"""Objects that would end if they were collected."""

SERVERS: dict[str, Callable[[bytes, socket.socket], Coroutine[Any, Any, None]]] = {
    "uvicorn": serve_uvicorn,
    "aiohttp": serve_aiohttp,
}


def main() -> None:
    settings = children.begin(children.SERVER_CORE)
    serve, body = SERVERS[settings["server"]], BODIES[settings["body"]]
    serve_on_loop(settings["contender"], tcp_listener(), lambda listener: serve(body, listener))


if __name__ == "__main__":
    main()
