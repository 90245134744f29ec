"""Owns: `serve_threads`: one port, served by several loops, each in its own thread.

Each worker listens on a socket of its own, bound to the same address (SO_REUSEPORT): the kernel spreads the
connections by a hash. (A listening socket that the workers share spreads worse: of 100 connections all went
to one of four rings, and 90 to one of four epoll loops.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from functools import partial

from .runner import new_event_loop

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType
    from typing import Any

    from .handover import Guest

__all__ = ["serve_threads"]

# Seconds between two looks at a server that can't be waited for.
_LOOK = 0.02


class _Worker:
    """A loop in its own thread, and the server that the factory makes there."""

    def __init__(
        self,
        factory: Callable[[socket.socket], Awaitable[Any]],
        sock: socket.socket,
        engine: str,
        spin: float,
        grace: float,
        backlog: int,
        news: threading.Condition,
        number: int,
        team: list[_Worker],
    ) -> None:
        self._factory = factory
        self._sock = sock
        self._backlog = backlog
        self._make_loop = partial(new_event_loop, engine, spin=spin)
        self._grace = grace
        self._news = news
        self._loop: asyncio.AbstractEventLoop | None = None
        self._team = team
        self._guests: set[Guest] = set()
        self._asked = asyncio.Event()
        self._making: asyncio.Timeout | None = None
        self._is_cut = False
        self.serves = False
        self._is_done = False
        self.over = False
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"proact-worker-{number}")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._make_loop) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError as error:
            self.error = None if self._is_cut else error
        except BaseException as error:
            self.error = error
        finally:
            self._sock.close()
            with self._news:
                self.over = True
                self._news.notify_all()

    async def _serve(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop._guests = self._guests
        with self._news:
            self._loop = loop
        try:
            await self._serve_until_stopped()
        finally:
            # From now on the loop may be closed.
            with self._news:
                self._loop = None

    async def _serve_until_stopped(self) -> None:
        making = asyncio.timeout_at(self._limit() if self._asked.is_set() else None)
        try:
            async with making:
                self._making = making
                server = await self._factory(self._sock)
        except TimeoutError:
            if making.expired():
                return
            raise
        finally:
            self._making = None
        if not callable(getattr(server, "close", None)):
            raise TypeError(f"the factory must make a server, which has close(), not {server!r}")
        if self._sock.fileno() >= 0:
            # A server that is given a socket listens on it with a backlog of its own.
            self._sock.listen(self._backlog)
        with self._news:
            self.serves = True
            self._news.notify_all()
        try:
            await self._asked.wait()
        finally:
            server.close()
        try:
            async with asyncio.timeout(self._grace):
                await _ended(server)
                self._is_done = True
                # Another worker may hand a connection over as long as it has one.
                while not all(worker.is_empty() for worker in self._team):
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            # Python 3.13 and later.
            if abort := getattr(server, "abort_clients", None):
                abort()
            for guest in list(self._guests):
                guest.abort()

    def is_empty(self) -> bool:
        """Whether its last connection has ended, once it was asked to stop. Any thread may call this.

        A connection that goes from one worker to another is never counted in neither.
        """
        return self.over or (self._is_done and not self._guests)

    def stop(self) -> None:
        """Have it end its server. Any thread may call this, with `news` locked."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._ask)
        else:
            # The loop has not begun, and will find it set.
            self._asked.set()

    def _ask(self) -> None:
        self._asked.set()
        if self._making:
            self._making.reschedule(self._limit())

    def _limit(self) -> float:
        """When a factory that has been asked to stop must be done: it has as long as connections have."""
        return asyncio.get_running_loop().time() + self._grace

    def leave(self) -> None:
        """Its thread could not be started."""
        self._sock.close()
        self.over = True

    def cut(self) -> None:
        """Have it wait no longer for its connections, as `stop`."""
        self._is_cut = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._cut)

    @staticmethod
    def _cut() -> None:
        for task in asyncio.all_tasks():
            task.cancel()


async def _ended(server: Any) -> None:
    """Wait until the last connection of a closed server is gone."""
    # Before Python 3.12, `wait_closed` does not wait for them.
    while getattr(server, "_active_count", 0) > 0:
        await asyncio.sleep(_LOOK)
    if wait := getattr(server, "wait_closed", None):
        await wait()


def _listeners(host: str, port: int, count: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen on one address. All are bound before the first connection comes."""
    family, kind, proto, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(family, kind, proto))
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The first socket is bound without it, so that a second server of this address does not take a
            # part of the connections, but gets an error.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, len(made) > 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            address = sock.getsockname()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for sock in made:
            sock.listen(backlog)
            sock.setblocking(False)
        stack.pop_all()
    return made


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM are the handler's, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)


def serve_threads(
    factory: Callable[[socket.socket], Awaitable[Any]],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    workers: int | None = None,
    engine: str = "auto",
    spin: float = 0.0,
    backlog: int = 1024,
    grace: float = 10.0,
    started: Callable[[Any], object] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve one TCP port from `workers` loops, each in its own thread, until SIGINT, SIGTERM or `stop`.

    `factory` is called in each worker with a listening socket, and returns an awaitable of a server, for
    instance `lambda sock: asyncio.start_server(client, sock=sock)`. Nothing else is shared between the loops.
    Without `workers` there are as many as the process may use CPUs. `engine` and `spin` are those of
    `new_event_loop`. `started` is called with the bound
    address once all of them serve.

    A stop closes the servers and waits up to `grace` seconds for their connections, for those that other
    workers have handed over, and for a factory that is still at it; then, or at a second signal, tasks are
    cancelled, and connections closed (only from Python 3.13 on does a protocol hear of it). A third signal
    does what it did before this call. It returns when every thread has ended. If a worker fails, all stop,
    and its exception is raised (an ExceptionGroup of several). Raises OSError if the address can't be bound.

    The threads run Python code in parallel only on a free-threaded Python; with the GIL, use processes.
    """
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    if count < 1:
        raise ValueError(f"workers must be at least 1, not {workers!r}")
    socks = _listeners(host, port, count, backlog)
    address = socks[0].getsockname()
    news = threading.Condition()
    team: list[_Worker] = []
    team += [
        _Worker(factory, sock, engine, spin, grace, backlog, news, number, team)
        for number, sock in enumerate(socks)
    ]
    signals: list[int] = []

    def wanted() -> bool:
        return bool(signals) or (stop is not None and stop.is_set()) or any(worker.over for worker in team)

    def wait(until: Callable[[], bool]) -> None:
        # In slices: neither a signal's handler nor an Event can wake a Condition.
        with news:
            while not until():
                news.wait(0.05)

    try:
        with _handled(lambda number, _: signals.append(number)):
            try:
                for worker in team:
                    worker.thread.start()
                wait(lambda: wanted() or all(worker.serves for worker in team))
                if started and not wanted():
                    started(address)
                wait(wanted)
            finally:
                with news:
                    for worker in team:
                        if worker.thread.ident is None:
                            worker.leave()
                        worker.stop()
                seen = len(signals)
                wait(lambda: len(signals) > seen or all(not worker.thread.is_alive() for worker in team))
                with news:
                    for worker in team:
                        worker.cut()
    finally:
        # A third signal does what it did before: a worker that blocks its loop hears of none.
        for worker in team:
            if worker.thread.ident is not None:
                worker.thread.join()
    errors = [worker.error for worker in team if worker.error]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several workers failed", errors)
