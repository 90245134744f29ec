"""Plain, blocking-looking code on proact's loop: greenlets, which switch where a thread would block.

    from proact import green

    def handler(conn):                       # plain code
        row = green.await_(db.fetchrow(...)) # any awaitable, from plain code
        conn.sendall(render(row))

    async def main():
        await green.run(function, arg)       # plain code, from a coroutine
        g = green.spawn(handler, conn)       # runs beside the coroutine
        await g

Nothing is patched, and one thread runs greenlets and asyncio's tasks on one loop. `docs/guide/green.md` is
the guide.
"""

try:
    from greenlet import GreenletExit
except ImportError as error:
    raise ImportError(
        "proact.green needs the package greenlet: pip install proact[green]", name="greenlet"
    ) from error

from . import processes as subprocess
from .bridge import await_, green_task, run
from .deadlock import Deadlock
from .files import open
from .greenlets import Greenlet, current, spawn, spawn_threadsafe
from .locks import BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from .patching import patch
from .pools import Pool
from .queues import LifoQueue, PriorityQueue, Queue
from .running import run_main
from .secure import SSLSocket, wrap_socket
from .serving import Server, listen, serve
from .sockets import create_connection, create_server, getaddrinfo, socket, socketpair
from .stacks import stacks
from .timeouts import Timeout, sleep
from .watchdog import watch

__all__ = [
    "BoundedSemaphore",
    "Condition",
    "Deadlock",
    "Event",
    "Greenlet",
    "GreenletExit",
    "LifoQueue",
    "Lock",
    "Pool",
    "PriorityQueue",
    "Queue",
    "RLock",
    "SSLSocket",
    "Semaphore",
    "Server",
    "Timeout",
    "await_",
    "create_connection",
    "create_server",
    "current",
    "getaddrinfo",
    "green_task",
    "listen",
    "open",
    "patch",
    "run",
    "run_main",
    "serve",
    "sleep",
    "socket",
    "socketpair",
    "spawn",
    "spawn_threadsafe",
    "stacks",
    "subprocess",
    "watch",
    "wrap_socket",
]
