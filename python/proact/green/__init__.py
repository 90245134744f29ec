"""Plain, blocking-looking code on proact's loop: greenlets, which switch where a thread would block.

    from proact import green

    def handler(conn):                       # plain code
        row = green.await_(db.fetchrow(...)) # any awaitable, from plain code
        conn.sendall(render(row))

    async def main():
        await green.run(function, arg)       # plain code, from a coroutine
        g = green.spawn(handler, conn)       # runs beside the coroutine
        await g

Nothing is patched, and one thread runs greenlets and asyncio's tasks on one loop. `docs/guide/green.md` is the guide.
"""

try:
    import greenlet as _greenlet  # noqa: F401
except ImportError as error:
    raise ImportError(
        "proact.green needs the package greenlet: pip install proact[green]", name="greenlet"
    ) from error

from greenlet import GreenletExit

from .bridge import await_, green_task, run
from .greenlets import Greenlet, current, spawn, spawn_threadsafe
from .hub import Hub
from .timeouts import Timeout, sleep

__all__ = [
    "Greenlet",
    "GreenletExit",
    "Hub",
    "Timeout",
    "await_",
    "current",
    "green_task",
    "run",
    "sleep",
    "spawn",
    "spawn_threadsafe",
]
