"""asyncio's loop beside gevent, in the same thread.

gevent's hub runs it, so nothing in it may switch to the hub. The modules that asyncio uses may be gevent's by
now. What would wait in them (threads for an executor, `Popen`) uses the originals here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
from _queue import SimpleQueue
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

from proact import signals
from proact.loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from types import ModuleType
    from typing import TypeVar, TypeVarTuple

    from proact.green.gevent_loop import Loop
    from proact.green.gevent_watchers import Signal

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

__all__ = ["Beside"]

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", "Callable[[], Any]"]

# As many threads as asyncio's executor has on a machine with many processors.
_MOST = 32


class _Workers:
    """Threads that call functions and tell their results to futures of an event loop."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._busy = 0

    def submit(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], job: Callable[[], Any]
    ) -> None:
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
def _original_subprocess() -> ModuleType:
    """A copy of the module `subprocess` with a copy of `os`, as both are before gevent patches them."""
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


class Beside(EventLoop):
    """The event loop of `gevent.get_hub().loop.aio`."""

    _workers: _Workers | None = None

    def __init__(self, engine: str, owner: Loop) -> None:
        super().__init__(engine)
        self._owner = owner
        self._watched: dict[int, Signal] = {}

    def _popen(self) -> Any:
        return _original_subprocess().Popen

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call back in the loop when the signal comes, by a watcher of gevent's."""
        signals.check(sig)
        self._check_closed()
        self.remove_signal_handler(sig)
        watcher = self._owner.signal(sig, ref=False)
        try:
            watcher.start(self.call_soon, callback, *args)
        except OSError:
            raise RuntimeError(f"sig {sig} cannot be caught") from None
        self._watched[sig] = watcher

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore what was set for the signal before; return whether there was a handler."""
        watcher = self._watched.pop(sig, None)
        if watcher is None:
            return False
        watcher.close()
        return True

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Call `func(*args)` in a thread; without an executor, in one that gevent has not replaced."""
        if executor is not None or self._default_executor is not None:  # type: ignore[attr-defined]
            return super().run_in_executor(executor, func, *args)
        self._check_closed()
        if self._workers is None:
            self._workers = _Workers()
        future: asyncio.Future[_T] = self.create_future()
        self._workers.submit(self, future, partial(func, *args))
        return future

    def close(self) -> None:
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
        super().close()

    def run_forever(self) -> None:
        raise RuntimeError(
            "gevent's hub runs this event loop: start a task by create_task(), and wait for it by gevent"
        )

    def stop(self) -> None:
        raise RuntimeError("gevent's hub runs this event loop, and stops it when nothing is left to do")

    def __del__(self, _warn: Any = None) -> None:
        # gevent never closes the hub of the main thread. The engine ends with the object.
        pass
