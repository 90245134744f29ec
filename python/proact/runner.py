"""Making a loop, and running a program on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["engine_report", "new_event_loop", "run"]

_T = TypeVar("_T")


def new_event_loop(engine: str = "auto") -> EventLoop:
    """A new event loop on `engine`: "io_uring", "epoll", "poll", "select", or "auto".

    "auto" is the first of them that works here; it is overridden by the environment variable `PROACT_ENGINE`.
    A ring that the user's limit of locked memory has no room for does not work; `loop.engine_info()` says so.
    Raises ValueError for an unknown name, OSError where a named engine can't be had, or where memory or file
    descriptors have run out.
    """
    return EventLoop(engine)


def engine_report() -> dict[str, Any]:
    """Every engine, tried: the same as `loop.engine_info()`, without a loop of one's own."""
    loop = new_event_loop()
    try:
        return loop.engine_info()
    finally:
        loop.close()


def run(main: Coroutine[Any, Any, _T], *, engine: str = "auto", debug: bool | None = None) -> _T:
    """Run a coroutine on a new loop, as `asyncio.run` does.

    Raises what `main` raises, RuntimeError inside a running loop, and as `new_event_loop`.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("proact.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=lambda: new_event_loop(engine)) as runner:
        return runner.run(main)
