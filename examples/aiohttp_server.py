"""aiohttp: `run_app` takes the loop."""

import asyncio
import os

from aiohttp import web

import proact


async def where(request: web.Request) -> web.Response:
    return web.Response(text=repr(asyncio.get_running_loop()))


app = web.Application()
app.router.add_get("/", where)

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(app, host="127.0.0.1", port=port, loop=proact.new_event_loop())
