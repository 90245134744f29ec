"""Making a loop, and running a program on it."""

from __future__ import annotations

import asyncio

from .loop import EventLoop

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")

__all__ = ["engine_report", "new_event_loop", "run"]


def new_event_loop(engine: str = "auto", *, spin: float = 0.0) -> EventLoop:
    """A new event loop on `engine`: "io_uring", "epoll", "poll", "select", or "auto".

    "auto" takes the first of these that works here; the environment variable `PROACT_ENGINE` overrides it. If
    the user's limit of locked memory has no room for a ring, io_uring does not work, and `loop.engine_info()`
    says so. Raises ValueError for an unknown name, and OSError if a named engine is not available or if
    memory or file descriptors have run out.

    `spin`, in seconds from 0 to 0.01: for how long a wait asks the engine again and again, without the GIL,
    before the thread sleeps. 50e-6 makes answers to one busy connection faster, at the price of a core that
    is busy meanwhile (docs/performance.md has figures). The loop stops spinning by itself while less than
    half of the spins pay, while another program wants the core, or while other threads hold the GIL;
    `loop.stats()["spin"]` tells.
    """
    return EventLoop(engine, spin=spin)


def engine_report() -> dict[str, Any]:
    """Try every engine; return what `loop.engine_info()` returns, without making a loop first."""
    loop = new_event_loop()
    try:
        return loop.engine_info()
    finally:
        loop.close()


def run(
    main: Coroutine[Any, Any, _T], *, engine: str = "auto", debug: bool | None = None, spin: float = 0.0
) -> _T:
    """Run a coroutine on a new loop, as `asyncio.run` does. `engine` and `spin`: as for `new_event_loop`.

    Raises what `main` raises, RuntimeError inside a running loop, and the errors of `new_event_loop`.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("proact.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=lambda: new_event_loop(engine, spin=spin)) as runner:
        return runner.run(main)
