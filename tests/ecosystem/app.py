"""The web application that every web server here serves: FastAPI on top, plain ASGI below."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect
from support import loops
from support.peers import payload

CHUNK = 20_000


class Seen:
    """The events inside the server that a test waits for."""

    def __init__(self) -> None:
        self.lifespan: list[str] = []
        self.stream_ended = asyncio.Event()


def make() -> tuple[FastAPI, Seen]:
    seen = Seen()

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        seen.lifespan.append("startup")
        yield
        seen.lifespan.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    @app.get("/loop")
    async def loop():
        return {"loop": loops.identify()}

    @app.get("/thread")
    def thread():
        # A plain function: FastAPI runs it in a thread and comes back through call_soon_threadsafe.
        return {"sum": sum(range(1000))}

    @app.post("/digest")
    async def digest(request: Request):
        hashed, size = hashlib.sha256(), 0
        async for piece in request.stream():
            hashed.update(piece)
            size += len(piece)
        return {"sha256": hashed.hexdigest(), "size": size}

    @app.get("/payload/{size}")
    async def whole(size: int):
        async def pieces():
            data = payload(size)
            for start in range(0, size, CHUNK):
                yield data[start : start + CHUNK]

        return StreamingResponse(pieces(), media_type="application/octet-stream")

    @app.get("/endless")
    async def endless():
        async def pieces():
            try:
                while True:
                    yield b"x" * CHUNK
                    await asyncio.sleep(0.001)
            finally:
                seen.stream_ended.set()

        return StreamingResponse(pieces())

    @app.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_bytes(await socket.receive_bytes())

    return app, seen


async def exercise(client, here: str, seen: Seen) -> None:
    """Move data through an httpx client, prove where the server runs, and leave halfway."""
    await transfer(client, here)
    await leave(client, seen)
    assert (await client.get("/loop")).json() == {"loop": here}


async def transfer(client, here: str) -> None:
    """Bodies up and down, several at once; `here` is the server's description of its loop."""
    assert (await client.get("/loop")).json() == {"loop": here}
    assert (await client.get("/thread")).json() == {"sum": 499_500}

    data = payload(2_000_000)
    answer = (await client.post("/digest", content=data)).json()
    assert answer == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    answers = await asyncio.gather(*(client.get(f"/payload/{size}") for size in (0, 1, 70_000, len(data))))
    for size, answer in zip((0, 1, 70_000, len(data)), answers, strict=True):
        assert answer.content == payload(size)


async def leave(client, seen: Seen) -> None:
    """Give up a download halfway; the server has to notice."""
    read = 0

    async def download():
        nonlocal read
        async with client.stream("GET", "/endless") as response:
            async for piece in response.aiter_raw():
                read += len(piece)

    task = asyncio.create_task(download())
    while read < 5 * CHUNK:
        await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    async with asyncio.timeout(10):
        await seen.stream_ended.wait()
