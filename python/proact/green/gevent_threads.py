"""What asyncio's loop beside gevent needs of modules that gevent may have patched: real threads, and a `Popen` that waits
in no greenlet.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
from _queue import SimpleQueue
from functools import cache
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["Workers", "original_subprocess"]

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", "Callable[[], Any]"]

# As many threads as asyncio's executor has on a machine with many processors.
_MOST = 32


class Workers:
    """Threads that call functions and tell their results to futures of an event loop."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def submit(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], job: Callable[[], Any]) -> None:
        """Have `job` called. Only the loop's thread may submit."""
        self._busy += 1
        future.add_done_callback(self._ended)
        self._jobs.put((loop, future, job))
        if self._threads < min(self._busy, _MOST):
            self._threads += 1
            get_original("_thread", "start_new_thread")(self._work, ())

    def _ended(self, _future: object) -> None:
        self._busy -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function = job
            try:
                set_it, outcome = future.set_result, function()
            except BaseException as error:
                set_it, outcome = future.set_exception, error
            try:
                loop.call_soon_threadsafe(_tell, future, set_it, outcome)
            except RuntimeError:
                pass  # the loop was closed meanwhile
            del job, future, function, outcome, set_it

    def close(self) -> None:
        """Let the threads end after what they do now."""
        for _ in range(self._threads):
            self._jobs.put(None)


def _tell(future: asyncio.Future[Any], set_it: Callable[[Any], object], outcome: Any) -> None:
    if not future.done():
        set_it(outcome)


@cache
def original_subprocess() -> ModuleType:
    """A copy of the module `subprocess` with a copy of `os`, as both are before gevent replaces their functions."""
    copies = [_copy(subprocess), _copy(os)]
    copies[0].os = copies[1]  # type: ignore[attr-defined]
    copies[1].environ = os.environ  # type: ignore[attr-defined]
    return copies[0]


def _copy(module: ModuleType) -> ModuleType:
    assert module.__file__ is not None
    spec = importlib.util.spec_from_file_location(f"proact_{module.__name__}", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied
