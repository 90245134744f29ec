"""Owns: running a program of greenlets without any asyncio code, and `asyncio.run` in a greenlet."""

from __future__ import annotations

import asyncio
import functools
import os
from asyncio import runners
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import getcurrent

from ..runner import new_event_loop
from .bridge import await_
from .greenlets import Bridge, Greenlet, Spawned, spawn
from .hub import hub_here
from .watchdog import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run_main"]

_T = TypeVar("_T")


def run_main(
    fn: Callable[..., _T],
    /,
    *args: Any,
    engine: str = "auto",
    watchdog: float | None = 0.05,
    **kwargs: Any,
) -> _T:
    """Run `fn` in a greenlet on a new loop; return its result when it has ended.

    Greenlets that still wait then get GreenletExit. `engine` is that of `proact.new_event_loop`. A greenlet
    that does not yield for `watchdog` seconds is logged with its stack; None: nobody looks. SIGINT raises
    KeyboardInterrupt in `fn` where it waits. If all greenlets wait and nothing can wake them, Deadlock is
    raised in `fn`. Raises RuntimeError in a running loop, and in a greenlet.
    """
    if asyncio._get_running_loop() is not None or _is_green():
        raise RuntimeError("run_main() begins a program: in a running loop, use green.spawn or green.run")
    with asyncio.Runner(loop_factory=lambda: new_event_loop(engine)) as runner:
        return runner.run(_main(watchdog, fn, args, kwargs))._result()


async def _main(
    watchdog: float | None, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Greenlet[_T]:
    main = spawn(fn, *args, **kwargs)
    main.hub.main = main
    if watchdog is not None:
        watch(watchdog)
    while not main.dead:
        try:
            await asyncio.shield(main._ended())
        except asyncio.CancelledError:
            # This is how asyncio.Runner tells of SIGINT.
            main.kill(KeyboardInterrupt, block=False)
    # Not its result: KeyboardInterrupt has ended the loop already, and nobody would ask this task for it.
    main._see()
    return main


def _is_green() -> bool:
    """Whether this is a greenlet of a loop that runs: not that of a parent process."""
    here = getcurrent()
    return isinstance(here, (Spawned, Bridge)) and here.hub.process == os.getpid()


# `asyncio.run` in a greenlet. It would make a loop of its own and block the thread with it. Instead, the
# coroutine runs in a task of the loop that runs already, and the greenlet waits for the task. `asyncio.run`
# and the methods of `asyncio.Runner` are replaced by functions that do this in a greenlet, and are as before
# everywhere else.

_asyncio_run = runners.run
_runner_run = runners.Runner.run
_lazy_init = runners.Runner._lazy_init  # type: ignore[attr-defined]


@functools.wraps(_asyncio_run)
def _run(main: Coroutine[Any, Any, Any], **kwargs: Any) -> Any:
    if not _is_green():
        return _asyncio_run(main, **kwargs)
    return _run_here(main)


@functools.wraps(_runner_run)
def _run_of_runner(self: asyncio.Runner, coro: Any, *, context: Any = None) -> Any:
    if not _is_green() or getattr(self, "_loop", None) is not None:
        return _runner_run(self, coro, context=context)
    return _run_here(coro, context)


@functools.wraps(_lazy_init)
def _init_of_runner(self: asyncio.Runner) -> None:
    # A runner that is entered in a greenlet has no loop of its own, and so closes none.
    if not _is_green():
        _lazy_init(self)


def _run_here(main: Any, context: Any = None) -> Any:
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = hub_here().loop
    if loop.get_task_factory() is not None:
        return await_(main)
    return await_(loop.create_task(main, context=context))


runners.run = asyncio.run = _run
runners.Runner.run = _run_of_runner  # type: ignore[method-assign]
runners.Runner._lazy_init = _init_of_runner  # type: ignore[attr-defined]
