"""httpx against a plain server of streams: keep-alive, a pool with a limit, timeouts, a proxy tunnel, TLS."""

import asyncio
import contextlib

import httpx
import pytest
from support.peers import payload

SIZE = 400_000


@contextlib.asynccontextmanager
async def serving(context=None):
    """An HTTP/1.1 server that answers /N with N bytes, stalls on /stall and hangs up halfway on /short."""
    connections = 0

    async def serve(reader, writer):
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                if path == "/stall":
                    await reader.read()
                    break
                size = SIZE if path == "/short" else int(path[1:])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                writer.write(payload(size)[: SIZE // 2] if path == "/short" else payload(size))
                await writer.drain()
                if path == "/short":
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        scheme = "https" if context else "http"
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: connections


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_client(loop, certificate, secure):
    async with serving(certificate.server() if secure else None) as (address, connections):
        async with httpx.AsyncClient(
            base_url=address,
            verify=certificate.client() if secure else False,
            limits=httpx.Limits(max_connections=4),
        ) as client:
            for _ in range(3):
                assert (await client.get(f"/{SIZE}")).content == payload(SIZE)
            assert connections() == 1
            answers = await asyncio.gather(*(client.get(f"/{size}") for size in range(20)))
            assert [answer.content for answer in answers] == [payload(size) for size in range(20)]
            assert connections() <= 4
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/stall", timeout=0.05)
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/short")
            task = asyncio.create_task(client.get("/stall"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.get("/10")).content == payload(10)


async def test_connection_refused(loop):
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://127.0.0.1:1/")
