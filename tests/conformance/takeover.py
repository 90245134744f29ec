"""Owns: the places where a helper of CPython's suite brings its own loop, or uses private parts of a loop.

- test_runners gives its runners a bare `BaseEventLoop` on a mocked selector: here it is a loop under test, of
  which the helper notes, as there, whether its asynchronous generators were shut down.
- test_pep492 does so in `setUp`: here it is a loop under test.
- test_tasks: `new_test_loop()` without a script of times is a loop under test; with a script it stays
  asyncio's `TestLoop`, whose clock the test moves. `_run_loop`, which runs a loop until its private `_ready`
  is empty, makes a fixed number of turns.
- test_tasks, test_taskgroups and test_eager_task_factory, since Python 3.14: where they name
  `asyncio.EventLoop`, they get a loop under test.
- utils: `close_loop` reads `_default_executor`; if a loop has none, it calls the public
  `shutdown_default_executor`.
- test_events on rloop, before Python 3.14: no child watcher is installed around each test: rloop 0.5 can't
  remove the signal handler that a watcher needs, and would fail all of them only for that.

Assertions are not changed. It must not know any single test.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .contenders import Contender

    NewLoop = Callable[[], asyncio.AbstractEventLoop]


def prepare(module: ModuleType, contender: Contender) -> None:
    """Replace the loops that `module` brings by loops under test."""
    _lenient_close(contender)
    match module.__name__.rpartition(".")[2]:
        case "test_runners":
            _runners(module, contender.new_loop)
        case "test_pep492":
            _pep492(module, contender.new_loop)
        case "test_tasks":
            _tasks(module, contender.new_loop)
            _by_name(module, contender.new_loop)
        case "test_taskgroups" | "test_eager_task_factory":
            _by_name(module, contender.new_loop)
        case "test_events" if contender.name == "rloop" and hasattr(module, "UnixEventLoopTestsMixin"):
            unix, plain = module.UnixEventLoopTestsMixin, module.EventLoopTestsMixin
            unix.setUp, unix.tearDown = plain.setUp, plain.tearDown


def _runners(module: ModuleType, new_loop: NewLoop) -> None:
    def make(self):
        loop = new_loop()
        loop.shutdown_ag_run = False
        shut_down = loop.shutdown_asyncgens

        async def shutdown_asyncgens():
            loop.shutdown_ag_run = True
            await shut_down()

        loop.shutdown_asyncgens = shutdown_asyncgens
        return loop

    module.BaseTest.new_loop = make


def _pep492(module: ModuleType, new_loop: NewLoop) -> None:
    def set_up(self):
        super(module.BaseTest, self).setUp()
        self.loop = new_loop()
        self.set_event_loop(self.loop)

    module.BaseTest.setUp = set_up


def _tasks(module: ModuleType, new_loop: NewLoop) -> None:
    from test.test_asyncio import utils

    scripted = utils.TestCase.new_test_loop

    def new_test_loop(self, gen=None):
        if gen is not None:
            return scripted(self, gen)
        loop = new_loop()
        self.set_event_loop(loop)
        return loop

    def run_loop(self, loop):
        for _ in range(10):
            utils.run_briefly(loop)

    module.GatherTestsBase._run_loop = run_loop
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, utils.TestCase) and kind is not utils.TestCase:
            kind.new_test_loop = new_test_loop


def _by_name(module: ModuleType, new_loop: NewLoop) -> None:
    class Asyncio(types.ModuleType):
        EventLoop = staticmethod(new_loop)

        def __getattr__(self, name):
            return getattr(asyncio, name)

    module.asyncio = Asyncio("asyncio")
    # Python 3.13 and later.
    default = getattr(asyncio, "EventLoop", None)
    for kind in vars(module).values():
        if isinstance(kind, type) and default and getattr(kind, "loop_factory", None) is default:
            kind.loop_factory = staticmethod(new_loop)


def _lenient_close(contender: Contender) -> None:
    from test.test_asyncio import utils

    known = utils.TestCase.close_loop
    if hasattr(known, "lenient"):
        return

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            known(loop)
            return
        if not loop.is_closed():
            # Ours, not the test's: it does not prove that the test ran the loop.
            ran = contender.ran
            loop.run_until_complete(loop.shutdown_default_executor())
            contender.ran = ran
        loop.close()

    close_loop.lenient = True
    utils.TestCase.close_loop = staticmethod(close_loop)
