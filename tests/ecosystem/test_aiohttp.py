"""aiohttp, server and client: streams both ways, WebSockets, TLS, a timeout, a client that leaves halfway."""

import asyncio
import contextlib
import hashlib
import io

import aiohttp
import pytest
from aiohttp import web
from support import loops
from support.peers import payload


class Site:
    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def loop(self, request):
        return web.json_response({"loop": loops.identify()})

    async def digest(self, request):
        hashed = hashlib.sha256()
        async for piece in request.content.iter_any():
            hashed.update(piece)
        return web.Response(text=hashed.hexdigest())

    async def payload(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        data = payload(int(request.match_info["size"]))
        for start in range(0, len(data), 30_000):
            await response.write(data[start : start + 30_000])
        return response

    async def slow(self, request):
        try:
            await asyncio.sleep(60)
        finally:
            self.left.set()

    async def echo(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket


@contextlib.asynccontextmanager
async def serving(context=None):
    site = Site()
    app = web.Application(client_max_size=0)
    app.add_routes(
        [
            web.get("/loop", site.loop),
            web.post("/digest", site.digest),
            web.get("/payload/{size}", site.payload),
            web.get("/slow", site.slow),
            web.get("/echo", site.echo),
        ]
    )
    # A handler whose client has gone is cancelled only on request.
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield site, f"http{'s' if context else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_server_and_client(loop, here, certificate, secure):
    async with serving(certificate.server() if secure else None) as (site, address):
        connector = aiohttp.TCPConnector(ssl=certificate.client() if secure else False)
        async with aiohttp.ClientSession(address, connector=connector) as session:
            async with session.get("/loop") as answer:
                assert await answer.json() == {"loop": here}
            data = payload(3_000_000)
            async with session.post("/digest", data=io.BytesIO(data)) as answer:
                assert await answer.text() == hashlib.sha256(data).hexdigest()

            async def fetch(size):
                async with session.get(f"/payload/{size}") as answer:
                    assert await answer.read() == payload(size)

            await asyncio.gather(*(fetch(size) for size in (0, 1, 29_999, 30_001, 500_000, 3_000_000)))

            with pytest.raises(TimeoutError):
                await session.get("/slow", timeout=aiohttp.ClientTimeout(total=0.05))
            async with asyncio.timeout(10):
                await site.left.wait()
            async with session.get("/loop") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_websocket(loop, certificate, secure):
    async with serving(certificate.server() if secure else None) as (_, address):
        connector = aiohttp.TCPConnector(ssl=certificate.client() if secure else False)
        async with aiohttp.ClientSession(address, connector=connector) as session:
            async with session.ws_connect("/echo") as socket:
                for size in (0, 1, 125, 126, 65_536, 500_000):
                    await socket.send_bytes(payload(size))
                    assert await socket.receive_bytes() == payload(size)
                waiting = asyncio.create_task(socket.receive_bytes())
                await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await socket.send_bytes(b"after")
                assert await socket.receive_bytes() == b"after"


async def test_file_is_sent(loop, tmp_path):
    """aiohttp passes static files to loop.sendfile, and copies them itself if that is refused."""
    path = tmp_path / "file"
    path.write_bytes(payload(2_000_000))

    async def file(request):
        return web.FileResponse(path)

    app = web.Application()
    app.router.add_get("/", file)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with session.get(address) as answer:
                assert await answer.read() == payload(2_000_000)
            async with session.get(address, headers={"Range": "bytes=1000-1999"}) as answer:
                assert await answer.read() == payload(2_000_000)[1000:2000]
    finally:
        await runner.cleanup()
