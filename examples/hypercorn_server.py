"""hypercorn: its command knows only its own loops, but its function `serve` runs on any running loop."""

import asyncio
import os

from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import proact


async def where(request: object) -> PlainTextResponse:
    return PlainTextResponse(repr(asyncio.get_running_loop()))


if __name__ == "__main__":
    config = Config.from_mapping(bind=f"127.0.0.1:{os.environ.get('PORT', '8000')}")
    proact.run(serve(Starlette(routes=[Route("/", where)]), config))
