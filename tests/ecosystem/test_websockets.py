"""websockets, server and client: sizes and fragments, TLS, many clients, pings, one cut off in the middle."""

import asyncio
import contextlib

import pytest
import websockets
from support import loops
from support.peers import payload
from websockets.asyncio.server import serve


@contextlib.asynccontextmanager
async def serving(handler, context=None):
    async with serve(handler, "127.0.0.1", 0, ssl=context) as server:
        yield f"{'wss' if context else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def connect(address, certificate, **options):
    context = certificate.client() if address.startswith("wss") else None
    return websockets.connect(address, ssl=context, proxy=None, max_size=None, **options)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_echo(loop, here, certificate, secure):
    async def echo(socket):
        await socket.send(loops.identify())
        async for message in socket:
            await socket.send(message)

    async with serving(echo, certificate.server() if secure else None) as address:

        async def talk(seed):
            async with connect(address, certificate) as client:
                assert await client.recv() == here
                for size in (0, 1, 125, 126, 65_535, 65_536, 900_000):
                    await client.send(payload(size, seed))
                    assert await client.recv() == payload(size, seed)
                await client.send(["frag", "ment", "ed"])
                assert await client.recv() == "fragmented"
                assert await (await client.ping()) >= 0

        await asyncio.gather(*(talk(seed) for seed in range(8)))


async def test_cancelled_in_the_middle(loop, certificate):
    ended = asyncio.Event()
    data = payload(100_000)  # data that compresses well would never fill the socket

    async def flood(socket):
        try:
            while True:
                await socket.send(data)
        except websockets.ConnectionClosed:
            ended.set()

    async with serving(flood) as address:

        async def read():
            # If unread messages come before it, the other side's close frame is never seen: websockets
            # stops reading at 16 of them, and waits for the whole close_timeout. It does so on asyncio and
            # on uvloop (measured: each of 8 floods cancelled after 150 messages, on each of the three).
            async with connect(address, certificate, close_timeout=0.1) as client:
                async for message in client:
                    assert message == data

        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await ended.wait()
