"""Owns: which parts of `test.test_asyncio` are run, and how a test class gets the loop under test.

It must not know how a test is run, nor which loop it is.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import takeover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from .contenders import Contender

SUITE = "test.test_asyncio"


@dataclass(frozen=True)
class Mixin:
    """Test methods that want a loop; they become one class, and the classes that they name are its bases."""

    names: tuple[str, ...]
    hook: str
    """The method that has to return a loop, or "policy": a `setUp` that puts one into `self.loop`."""


@dataclass(frozen=True)
class Group:
    """A row of the table."""

    name: str
    module: str
    mixin: Mixin | None = None
    classes: tuple[str, ...] = ()
    """Test cases that take the default loop. "*": all of the module's, except children of the mixin."""

    @property
    def about_the_loop(self) -> bool:
        return self.mixin is not None


def _mixin(name: str, module: str, hook: str, *names: str, classes: tuple[str, ...] = ()) -> Group:
    return Group(name, module, Mixin(names, hook), classes)


# Python 3.14 has no child watchers of a policy any more, so the classes that installed them have gone.
_EVENTS = "EventLoopTestsMixin" if sys.version_info >= (3, 14) else "UnixEventLoopTestsMixin"

# Tests of the loop itself.
MIXINS = (
    _mixin("events", "test_events", "create_event_loop", _EVENTS, "SubprocessTestsMixin"),
    _mixin("sock", "test_sock_lowlevel", "create_event_loop", "BaseSockTestsMixin"),
    _mixin("sendfile", "test_sendfile", "create_event_loop", "SendfileTestsBase"),
    _mixin("buffered_proto", "test_buffered_proto", "new_loop", "BaseTestBufferedProtocol"),
    _mixin("server", "test_server", "new_loop", "BaseStartServer", classes=("*",)),
    _mixin("start_tls", "test_sslproto", "new_loop", "BaseStartTLS"),
    _mixin("subprocess", "test_subprocess", "policy", "SubprocessMixin"),
)

# Tests of code that uses a loop. A class that a mixin above covers is not run a second time.
MODULES = (
    Group("server_context", "test_server_context", classes=("*",)),
    Group("unix", "test_unix_events", classes=("TestFunctional", "TestFork")),
    Group("ssl", "test_ssl", classes=("*",)),
    Group("sslproto", "test_sslproto", classes=("SslProtoHandshakeTests",)),
    Group("streams", "test_streams", classes=("*",)),
    Group("runners", "test_runners", classes=("*",)),
    Group("taskgroups", "test_taskgroups", classes=("*",)),
    Group("timeouts", "test_timeouts", classes=("*",)),
    Group("locks", "test_locks", classes=("*",)),
    Group("queues", "test_queues", classes=("*",)),
    Group("waitfor", "test_waitfor", classes=("*",)),
    Group("tasks", "test_tasks", classes=("*",)),
    Group("eager", "test_eager_task_factory", classes=("*",)),
    Group("context", "test_context", classes=("*",)),
    Group("graph", "test_graph", classes=("*",)),
    Group("free_threading", "test_free_threading", classes=("*",)),
    Group("pep492", "test_pep492", classes=("*",)),
    Group("threads", "test_threads", classes=("*",)),
)
GROUPS = MIXINS + MODULES


@dataclass(frozen=True)
class Case:
    """One test."""

    group: Group
    test: unittest.TestCase
    of_mixin: bool

    @property
    def id(self) -> str:
        return f"{self.group.name}/{type(self.test).__name__}.{self.test._testMethodName}"


def installed() -> bool:
    """Whether this CPython has its tests: some distributions package them apart."""
    try:
        importlib.import_module(SUITE)
    except ImportError:
        return False
    return True


def load(contender: Contender) -> Iterator[Case]:
    """Every test of every group that this Python has, for the loops of `contender`."""
    for group in GROUPS:
        try:
            module = importlib.import_module(f"{SUITE}.{group.module}")
        except ModuleNotFoundError:
            continue
        takeover.prepare(module, contender)
        bases: tuple[type, ...] = ()
        if group.mixin is not None:
            bases = tuple(getattr(module, name) for name in group.mixin.names)
            yield from _cases(group, _concrete(group, bases, contender), of_mixin=True)
        for kind in _test_classes(module, group.classes):
            if not issubclass(kind, bases):
                yield from _cases(group, kind, of_mixin=False)


def _cases(group: Group, kind: type[unittest.TestCase], of_mixin: bool) -> Iterator[Case]:
    for name in unittest.defaultTestLoader.getTestCaseNames(kind):
        yield Case(group, kind(name), of_mixin)


def _test_classes(module: ModuleType, wanted: tuple[str, ...]) -> Iterator[type[unittest.TestCase]]:
    for name, kind in vars(module).items():
        if not isinstance(kind, type) or not issubclass(kind, unittest.TestCase):
            continue
        if kind.__module__ == module.__name__ and (wanted == ("*",) or name in wanted):
            yield kind


def _concrete(group: Group, bases: tuple[type, ...], contender: Contender) -> type[unittest.TestCase]:
    """The test case that CPython makes for each of its own loops, made here for the loop under test."""
    from test.test_asyncio import utils

    base = unittest.TestCase if group.mixin.hook == "new_loop" else utils.TestCase
    body: dict[str, object] = {"__module__": bases[0].__module__}
    if group.mixin.hook == "policy":

        def set_up(self):
            super(kind, self).setUp()
            self.loop = asyncio.new_event_loop()
            self.set_event_loop(self.loop)

        body["setUp"] = set_up
    else:
        body[group.mixin.hook] = lambda self: contender.new_loop()
    kind = type(f"{bases[0].__name__.removesuffix('Mixin')}", (*bases, base), body)
    return kind
