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

    "auto" takes the first of these that works here; the environment variable `PROACT_ENGINE` overrides it. If
    the user's limit of locked memory has no room for a ring, io_uring does not work, and `loop.engine_info()`
    says so. Raises ValueError for an unknown name, and OSError if a named engine is not available or if
    memory or file descriptors have run out.
    """
    return EventLoop(engine)


def engine_report() -> dict[str, Any]:
    """Try every engine; return what `loop.engine_info()` returns, without making a loop first."""
    loop = new_event_loop()
    try:
        return loop.engine_info()
    finally:
        loop.close()


def run(main: Coroutine[Any, Any, _T], *, engine: str = "auto", debug: bool | None = None) -> _T:
    """Run a coroutine on a new loop, as `asyncio.run` does.

    Raises what `main` raises, RuntimeError inside a running loop, and the errors of `new_event_loop`.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("proact.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=lambda: new_event_loop(engine)) as runner:
        return runner.run(main)
