"""hypercorn serving FastAPI: HTTP/1.1, HTTP/2 over TLS, WebSockets."""

import asyncio
import contextlib
import logging
import socket

import app as web
import httpx
import websockets
from hypercorn.asyncio import serve
from hypercorn.config import Config
from support.peers import payload


@contextlib.asynccontextmanager
async def serving(app, **options):
    """A hypercorn on the running loop: its port."""
    # It takes the socket, so that the port is known, and closes it.
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    config = Config.from_mapping(
        bind=[f"fd://{sock.detach()}"], errorlog=logging.getLogger("hypercorn"), **options
    )
    end = asyncio.Event()
    task = asyncio.create_task(serve(app, config, shutdown_trigger=end.wait))
    try:
        yield port
    finally:
        end.set()
        await task


async def test_http(loop, here):
    app, seen = web.make()
    async with serving(app) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await web.exercise(client, here, seen)
    assert seen.lifespan == ["startup", "shutdown"]


async def test_http2_over_tls(loop, here, certificate):
    app, _ = web.make()
    async with serving(app, certfile=str(certificate.chain), keyfile=str(certificate.key)) as port:
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", verify=certificate.client(), http2=True
        ) as client:
            assert (await client.get("/loop")).http_version == "HTTP/2"
            await web.transfer(client, here)


async def test_websocket(loop):
    app, _ = web.make()
    async with serving(app) as port:
        async with websockets.connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as client:
            for size in (0, 1, 126, 65_536, 500_000):
                await client.send(payload(size))
                assert await client.recv() == payload(size)
