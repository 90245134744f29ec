"""Owns: greenlets with the interface of threads, for packages that are patched."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .greenlets import Greenlet, current, spawn
from .hub import hub_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Thread", "Timer", "current_thread", "get_ident", "local"]

_numbers = itertools.count(1)
_threads: WeakKeyDictionary[Greenlet[Any], Thread] = WeakKeyDictionary()


class Thread:
    """A greenlet with the interface of `threading.Thread`."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._greenlet: Greenlet[Any] | None = None
        self.name = name or f"GreenThread-{next(_numbers)}"
        self.daemon = bool(daemon)

    def start(self) -> None:
        """Begin to run."""
        if self._greenlet is not None:
            raise RuntimeError("threads can only be started once")
        self._greenlet = spawn(self.run)
        _threads[self._greenlet] = self

    def run(self) -> None:
        """What it does."""
        if self._target is not None:
            self._target(*self._args, **self._kwargs)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        if self._greenlet is None:
            raise RuntimeError("cannot join thread before it is started")
        self._greenlet.join(timeout)

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def ident(self) -> int | None:
        """A number that no other has at the same time."""
        return None if self._greenlet is None else id(self._greenlet)

    native_id = ident

    def __repr__(self) -> str:
        return f"<green {type(self).__name__} {self.name}>"


class Timer(Thread):
    """Calls a function after a time, as `threading.Timer`."""

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(target=function, args=args or (), kwargs=kwargs)
        self.interval = interval
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled = False

    def start(self) -> None:
        """Begin to count the time."""
        if not self._cancelled:
            self._timer = hub_here().loop.call_later(self.interval, super().start)

    def cancel(self) -> None:
        """Call nothing, unless that has begun."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()


def current_thread() -> Any:
    """The green thread that runs now; outside of one, what `threading` says."""
    here = current()
    return (here and _threads.get(here)) or threading.current_thread()


def _me() -> Any:
    """What keeps apart the values of a `local`."""
    if (here := current()) is not None:
        return here
    if asyncio._get_running_loop() is not None and (task := asyncio.current_task()) is not None:
        return task
    return threading.current_thread()


def get_ident() -> int:
    """A number of what runs now, as `threading.get_ident`."""
    here = _me()
    return threading.get_ident() if isinstance(here, threading.Thread) else id(here)


class local:  # noqa: N801 the name that programs know
    """`threading.local` whose values belong to a greenlet, or to the task of `green.run`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        object.__setattr__(self, "_values", WeakKeyDictionary())
        object.__setattr__(self, "_made_with", (args, kwargs))
        # Made by `__init__`, which Python calls next.
        self._values[_me()] = {}
        return self

    def _mine(self) -> dict[str, Any]:
        values: WeakKeyDictionary[Any, dict[str, Any]] = object.__getattribute__(self, "_values")
        here = _me()
        if (mine := values.get(here)) is None:
            mine = values[here] = {}
            args, kwargs = object.__getattribute__(self, "_made_with")
            type(self).__init__(self, *args, **kwargs)
        return mine

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return local._mine(self)
        if name not in ("_values", "_made_with", "_mine", "__class__"):
            mine = local._mine(self)
            if name in mine:
                return mine[name]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        local._mine(self)[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del local._mine(self)[name]
        except KeyError:
            raise AttributeError(name) from None
