"""Which engine a loop gets, and running a program on it."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any, TypeVar

from . import _core
from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["engine_report", "new_event_loop", "run"]

_T = TypeVar("_T")


def _check_name(engine: str, source: str) -> str:
    if engine != "auto" and engine not in _core.ENGINES:
        names = ", ".join(("auto", *_core.ENGINES))
        raise ValueError(f"{source}: no engine is named {engine!r}; there are {names}")
    return engine


def _requested(engine: str) -> str:
    """The engine asked for: the argument, else `PROACT_ENGINE`, else "auto"."""
    if _check_name(engine, "engine") != "auto":
        return engine
    return _check_name(os.environ.get("PROACT_ENGINE") or "auto", "PROACT_ENGINE")


def new_event_loop(engine: str = "auto") -> EventLoop:
    """A new event loop on `engine`: "io_uring", "epoll", "poll", "select", or "auto".

    "auto" is the first of them that works here; it is overridden by the environment variable `PROACT_ENGINE`.
    A ring that the user's limit of locked memory has no room for does not work; `loop.engine_info()` says so.
    Raises ValueError for an unknown name, OSError where a named engine can't be had, or where memory or file
    descriptors have run out.
    """
    requested = _requested(engine)
    engines: dict[str, dict[str, Any]] = {}
    info = {"requested": requested, "engines": engines}
    if requested != "auto":
        if engine == "auto":
            # The environment has decided: nothing of another engine is touched, not even to ask. Under a
            # filter that kills instead of refusing, a probe would be the end.
            for name in _core.ENGINES:
                engines[name] = {"available": False, "reason": f"not tried: PROACT_ENGINE is {requested}"}
        return EventLoop(requested, info)
    for name in _core.ENGINES:
        try:
            loop = EventLoop(name, info)
        except OSError as error:
            # The ring's is the limit of locked memory, which the other engines need none of.
            exhausted = error.errno == errno.ENOMEM and name != "io_uring"
            if exhausted or error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            engines[name] = {"available": False, "reason": error.strerror or str(error)}
            continue
        return loop
    raise OSError(errno.ENOSYS, f"no engine works here: {engines}")


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
