"""Owns: what the greenlets of one loop share, and which loop a call means.

The greenlet that runs the loop is the hub of its thread. `Hub` here is what belongs to it: the greenlets that
are alive, in the order in which they were spawned. It must not know what a greenlet does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..loop import EventLoop
    from .greenlets import Bridge, Greenlet, Spawned
    from .watchdog import Watchdog

__all__ = ["Hub", "hub_here", "hub_of", "refuse"]

IN_A_COROUTINE = (
    "this call would block, and coroutines and callbacks of the loop must not block. "
    "Call it in a function that runs by `await green.run(function)` or `green.spawn(function)`, "
    "or decorate the coroutine function with `@green_task`."
)
NO_LOOP = (
    "no loop of proact's runs here: begin with proact.green.run_main(function) or proact.run(coroutine())"
)
FOREIGN = (
    "this call would block, and {!r} can't wait: only greenlets of proact.green's can, "
    "which green.spawn, green.run and @green_task make."
)


class Hub(_core.Hub):
    """What the greenlets of one loop share; made when the loop spawns its first."""

    close_limit = 5.0
    """Seconds that greenlets have to end when their loop closes."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.alive: dict[Greenlet[Any], None] = {}
        self.process = os.getpid()
        self._thread = threading.get_ident()
        self._empty: asyncio.Future[None] | None = None
        self.idle_bridges: list[Bridge] = []
        self.bridges: dict[Bridge, None] = {}
        self.main: Greenlet[Any] | None = None
        self.watchdog: Watchdog | None = None
        loop._tell_idle(True)

    def new_greenlet(self) -> Spawned:
        from .greenlets import Spawned

        made = Spawned()
        made.hub = self
        return made

    def bridge(self) -> Bridge:
        """A greenlet for `green.run`."""
        if self.idle_bridges:
            return self.idle_bridges.pop()
        from .greenlets import Bridge

        made = Bridge()
        made.hub = self
        made._interrupts = []
        return made

    def check_thread(self) -> None:
        """Raise RuntimeError if the loop runs in another thread."""
        if self.loop._thread_id not in (None, threading.get_ident()):
            raise RuntimeError(
                "this greenlet belongs to another thread: use loop.call_soon_threadsafe or "
                "green.spawn_threadsafe"
            )

    def ended(self, greenlet: Greenlet[Any]) -> None:
        """A greenlet is over."""
        self.alive.pop(greenlet, None)
        if self._empty is not None and not self.alive and not self._empty.done():
            self._empty.set_result(None)

    def idle(self) -> None:
        """Nothing that the loop knows of can wake it: if greenlets wait, they wait for each other."""
        if not self.alive or self._empty is not None:
            return
        from .deadlock import Deadlock, something_can_wake
        from .stacks import describe

        if something_can_wake(self):
            return
        victim = self.main if self.main in self.alive else next(iter(self.alive))
        assert victim is not None
        error = Deadlock("all greenlets wait, and nothing can wake them:\n" + describe(self))
        self.loop.call_soon(victim._interrupt, error)

    def report(self, message: str, exception: BaseException | None, greenlet: object) -> None:
        """Tell the loop's exception handler."""
        context: dict[str, Any] = {"message": message, "greenlet": greenlet}
        if exception is not None:
            context["exception"] = exception
        self.loop.call_exception_handler(context)

    def end(self) -> None:
        """Raise GreenletExit in all greenlets, in order, and give them `close_limit` seconds to end."""
        if self.process != os.getpid() or self._thread != threading.get_ident():
            # Greenlets can't be switched to from here.
            self._give_up()
            return
        if self.alive:
            self._end_alive()
        if self.watchdog is not None:
            self.watchdog.stop()
            self.watchdog = None
        for idle in (*self._take_idle(), *self.idle_bridges):
            idle.parent = getcurrent()  # where it goes when it has ended
            idle.throw(GreenletExit)
        self.idle_bridges.clear()

    def _end_alive(self) -> None:
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            self.loop.run_until_complete(self._end())
        finally:
            asyncio._set_running_loop(outer)
        self._give_up()

    def _give_up(self) -> None:
        left = list(self.alive) if self.process == os.getpid() else []
        self.alive.clear()
        for greenlet in left:
            self.report("A greenlet was killed and did not end before its loop closed", None, greenlet)

    async def _end(self) -> None:
        deadline = self.loop.time() + self.close_limit
        while self.alive and self.loop.time() < deadline:
            self._empty = self.loop.create_future()
            killed: Iterable[Greenlet[Any]] = list(self.alive)
            for greenlet in killed:
                greenlet.kill(block=False)
            await asyncio.wait([self._empty], timeout=max(0.0, deadline - self.loop.time()))
        self._empty = None


def hub_of(loop: asyncio.AbstractEventLoop) -> Hub:
    """The hub of a loop."""
    hub: Hub | None = getattr(loop, "_hub", None)
    if hub is None:
        if not isinstance(loop, _core.Scheduler):
            raise RuntimeError(f"proact.green needs a loop of proact's, not {loop!r}")
        hub = loop._hub = Hub(loop)  # type: ignore[attr-defined, arg-type]
    return hub


def hub_here() -> Hub:
    """The hub of the running loop, or of the spawned greenlet that runs now, which sees no running loop."""
    loop = asyncio._get_running_loop()
    if loop is not None:
        return hub_of(loop)
    hub: Hub | None = getattr(getcurrent(), "hub", None)
    if hub is None:
        raise RuntimeError(NO_LOOP)
    return hub


def refuse() -> None:
    """Raise the error for a call that would block where nothing may block."""
    here = getcurrent()
    if here.parent is not None:
        raise RuntimeError(FOREIGN.format(here))
    raise RuntimeError(NO_LOOP if asyncio._get_running_loop() is None else IN_A_COROUTINE)
