"""uvicorn serving FastAPI: both HTTP parsers, WebSockets, TLS, the command line, several workers."""

import asyncio
import contextlib
import re
import signal

import app as web
import httpx
import pytest
import started
import uvicorn
import websockets
from support.peers import payload


@contextlib.asynccontextmanager
async def serving(app, **options):
    """A uvicorn server on the running loop: its port."""
    # uvicorn's own set-up of logging closes all handlers, including pytest's.
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_config=None, **options))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "uvicorn ended"
        await asyncio.sleep(0.005)
    try:
        address = server.servers[0].sockets[0].getsockname()
        yield address if isinstance(address, str) else address[1]
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_http(loop, here, http):
    app, seen = web.make()
    async with serving(app, http=http) as port:
        assert seen.lifespan == ["startup"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await web.exercise(client, here, seen)
    assert seen.lifespan == ["startup", "shutdown"]


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_tls(loop, here, certificate, http):
    app, seen = web.make()
    files = {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key}
    async with serving(app, http=http, **files) as port:
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", verify=certificate.client()
        ) as client:
            await web.exercise(client, here, seen)


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_websocket(loop, certificate, ws, secure):
    app, _ = web.make()
    files = {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key} if secure else {}
    async with serving(app, ws=ws, **files) as port:
        address = f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/echo"
        context = certificate.client() if secure else None
        async with websockets.connect(address, ssl=context, proxy=None) as client:
            for size in (0, 1, 125, 126, 65_536, 500_000):
                await client.send(payload(size))
                assert await client.recv() == payload(size)
            waiting = asyncio.create_task(client.recv())
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await client.send(b"after")
            assert await client.recv() == b"after"


@pytest.mark.parametrize("workers", [1, 2])
def test_command_line(engine, workers):
    """`uvicorn --loop proact:new_event_loop`, stopped as a service manager stops it."""
    options = ("--loop", "proact:new_event_loop", "--port", "0", "--workers", str(workers))
    with started.running("-m", "uvicorn", "served:app", *options, engine=engine) as child:
        port = re.search(r"running on http://127.0.0.1:(\d+)", child.until("running on"))[1]
        child.until("startup complete", times=workers) if workers > 1 else None
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert client.get("/loop").json() == {"loop": f"proact.loop.EventLoop {engine}"}
            assert client.get("/payload/300000").content == payload(300_000)
        child.end(signal.SIGTERM)
