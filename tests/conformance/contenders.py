"""Owns: the loops that the suite can run on, and the counts of loops that were made and that ran.

It must not know any test.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.metadata
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("proact", "asyncio", "uvloop", "rloop", "zuvloop", "rsloop")
ENGINES = ("io_uring", "epoll", "poll", "select")


class Contender:
    """One of NAMES, with an engine if it is proact. `made` and `ran` count its loops in this process."""

    def __init__(self, name: str, engine: str = "") -> None:
        self.name = name
        self.engine = engine if name == "proact" else ""
        self.made = 0
        self.ran = 0
        self._factory, kind = _factory(name, self.engine)
        for method in ("run_forever", "run_until_complete"):
            setattr(kind, method, self._counted(getattr(kind, method)))

    def __str__(self) -> str:
        return f"{self.name} on {self.engine}" if self.engine else self.name

    @property
    def version(self) -> str:
        if self.name == "asyncio":
            return sys.version.split()[0]
        return importlib.metadata.version(self.name)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        self.made += 1
        return self._factory()

    def become_default(self) -> None:
        """Let asyncio's own policy make these loops, also after a test has reset the policy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            policy = asyncio.DefaultEventLoopPolicy
        policy._loop_factory = staticmethod(self.new_loop)

    def _counted(self, method: Callable) -> Callable:
        @functools.wraps(method)
        def run(*args, **kwargs):
            self.ran += 1
            return method(*args, **kwargs)

        return run


def _factory(name: str, engine: str) -> tuple[Callable[[], asyncio.AbstractEventLoop], type]:
    """The function that makes a loop, and the loop's class."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop, asyncio.SelectorEventLoop
    if name == "proact":
        import proact

        return functools.partial(proact.new_event_loop, engine), proact.EventLoop
    factory = importlib.import_module(name).new_event_loop
    loop = factory()
    loop.close()
    return factory, type(loop)
