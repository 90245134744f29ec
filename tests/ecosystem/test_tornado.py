"""tornado, server and client, on the running loop: bodies, streams, WebSockets, a client that gives up."""

import asyncio
import hashlib

import pytest
from support import loops
from support.peers import payload
from tornado import httpserver, simple_httpclient, testing, web, websocket


class Where(web.RequestHandler):
    def get(self):
        self.write({"loop": loops.identify()})


class Digest(web.RequestHandler):
    def post(self):
        self.write(hashlib.sha256(self.request.body).hexdigest())


class Payload(web.RequestHandler):
    async def get(self, size):
        data = payload(int(size))
        for start in range(0, len(data), 50_000):
            self.write(data[start : start + 50_000])
            await self.flush()


class Slow(web.RequestHandler):
    left = None

    async def get(self):
        await asyncio.sleep(60)

    def on_connection_close(self):
        self.left.set()


class Echo(websocket.WebSocketHandler):
    async def on_message(self, message):
        await self.write_message(message, binary=True)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_server_and_client(loop, here, certificate, secure):
    sock, port = testing.bind_unused_port()
    Slow.left = asyncio.Event()
    slow = []

    class Remembered(Slow):
        def prepare(self):
            slow.append(asyncio.current_task())

    app = web.Application(
        [
            (r"/", Where),
            (r"/digest", Digest),
            (r"/payload/(\d+)", Payload),
            (r"/slow", Remembered),
            (r"/echo", Echo),
        ]
    )
    server = httpserver.HTTPServer(app, ssl_options=certificate.server() if secure else None)
    server.add_socket(sock)
    client = simple_httpclient.SimpleAsyncHTTPClient(force_instance=True)
    options = {"ssl_options": certificate.client()} if secure else {}
    address = f"http{'s' if secure else ''}://127.0.0.1:{port}"
    try:

        async def fetch(path, **more):
            return (await client.fetch(address + path, **options, **more)).body

        assert here.encode() in await fetch("/")
        data = payload(3_000_000)
        assert (
            await fetch(
                "/digest", method="POST", body=data, headers={"Content-Type": "application/octet-stream"}
            )
            == hashlib.sha256(data).hexdigest().encode()
        )
        sizes = (0, 1, 70_000, 3_000_000)
        assert await asyncio.gather(*(fetch(f"/payload/{size}") for size in sizes)) == [
            payload(n) for n in sizes
        ]
        with pytest.raises(simple_httpclient.HTTPTimeoutError):
            await fetch("/slow", request_timeout=0.1)
        async with asyncio.timeout(10):
            await Slow.left.wait()
        if not secure:
            socket = await websocket.websocket_connect(f"ws://127.0.0.1:{port}/echo")
            for size in (0, 1, 126, 65_536, 500_000):
                await socket.write_message(payload(size), binary=True)
                assert await socket.read_message() == payload(size)
            socket.close()
            assert await socket.read_message() is None
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()
        # If a client has gone, tornado lets its handler run on.
        for task in slow:
            task.cancel()
        await asyncio.sleep(0.05)
