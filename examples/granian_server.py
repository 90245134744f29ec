"""granian: its command knows only its own loops, but its registry takes others, which its workers make."""

import asyncio
import os

import granian
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import proact


@granian.loops.register("proact")
def proact_loop() -> asyncio.AbstractEventLoop:
    loop = proact.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


async def where(request: object) -> PlainTextResponse:
    return PlainTextResponse(repr(asyncio.get_running_loop()))


app = Starlette(routes=[Route("/", where)])

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    granian.Granian("granian_server:app", port=port, interface="asgi", loop="proact").serve()
