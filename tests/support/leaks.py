"""The watch over every test: leaks, and errors in places where no assertion can see them.

Owns the list of open fds before and after, the errors that a loop hands to its exception handler (or, if a
test makes its own loop, that asyncio logs), unraisable exceptions and exceptions of threads. A test that
provokes such an error takes it with `unhandled.take()`; an error that was not taken fails the test.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
from typing import Any, NamedTuple

import pytest

from . import loops


class Problem(NamedTuple):
    where: str  # "handler", "log", "unraisable" or "thread"
    message: str
    exception: BaseException | None
    context: dict[str, Any]


def open_fds() -> dict[int, str]:
    """Every open fd of this process, with the file that it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the fd of this very listing
    return found


class Unhandled(logging.Handler):
    """A context manager that collects the unhandled errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.problems: list[Problem] = []

    def __enter__(self) -> Unhandled:
        self._hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread
        logging.getLogger("asyncio").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("asyncio").removeHandler(self)
        sys.unraisablehook, threading.excepthook = self._hooks

    def take(self, where: str = "handler") -> list[Problem]:
        """Return and forget the problems seen there so far: the test expected them."""
        taken = [problem for problem in self.problems if problem.where == where]
        self.problems = [problem for problem in self.problems if problem.where != where]
        return taken

    def take_one(self, where: str = "handler") -> Problem:
        """The only problem seen there: there must be exactly one, so no error was reported twice."""
        problems = self.take(where)
        assert len(problems) == 1, f"expected one problem, got {problems}"
        return problems[0]

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(self._context)

    def _context(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.problems.append(Problem("handler", context["message"], context.get("exception"), context))

    def emit(self, record: logging.LogRecord) -> None:
        exception = record.exc_info[1] if record.exc_info else None
        self.problems.append(Problem("log", record.getMessage(), exception, {}))

    def _unraisable(self, unraisable: Any) -> None:
        # Keep only text: `unraisable.object` would resurrect the object that is being finalised.
        message = f"{unraisable.err_msg}: {unraisable.object!r}: {unraisable.exc_value!r}"
        self.problems.append(Problem("unraisable", message, None, {}))

    def _thread(self, args: Any) -> None:
        self.problems.append(Problem("thread", f"{args.thread!r}: {args.exc_value!r}", None, {}))


def close_loop(loop: Any, settle: Any, in_flight: Any) -> list[str]:
    """Close a loop as asyncio.Runner does, and return what the test left running on it."""
    if loop.is_closed():
        return []
    left = []
    try:
        settle(loop)
        tasks = asyncio.all_tasks(loop)
        if tasks:
            left.append(f"tasks left: {tasks}")
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        ops = in_flight(loop)
        if ops:
            left.append(f"{ops} ops left in flight")
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return left


def difference(before: dict[int, str], after: dict[int, str]) -> list[str]:
    """The fds that were opened and not closed, and those that the test closed although others had opened
    them.
    """
    leaked = [f"fd {fd} leaked: {after[fd]}" for fd in after if after[fd] != before.get(fd)]
    stolen = [f"fd {fd} closed behind its owner: {before[fd]}" for fd in before if fd not in after]
    return leaked + stolen


def threads_left(before: set[threading.Thread]) -> list[str]:
    """The new threads that do not end within seconds."""
    new = set(threading.enumerate()) - before
    for thread in new:
        thread.join(5)  # a thread that has done its work may still be ending
    return [f"thread left: {thread}" for thread in new if thread.is_alive()]


def complain(about: str, left: list[str]) -> None:
    """Fail with a list of what is left, at most twenty lines."""
    if left:
        more = [f"... and {len(left) - 20} more"] if len(left) > 20 else []
        pytest.fail("\n".join([about, *left[:20], *more]), pytrace=False)


def instances() -> dict[str, int]:
    """How many objects of each native class are alive, plus a constant; empty on a reference loop.

    Each object holds a reference to its class, so this also counts objects that the collector does not know.
    """
    if loops.REFERENCE:
        return {}
    from proact import _core

    kinds = {name: kind for name, kind in vars(_core).items() if isinstance(kind, type)}
    return {name: sys.getrefcount(kind) for name, kind in kinds.items()}


def collect() -> None:
    """Finalise all garbage, so that its fds are closed and its warnings given."""
    gc.collect()
