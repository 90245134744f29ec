"""gevent's watchers of signals, children and files: they run once per event that is rare.

Of the module `os` gevent replaces `close`, `waitpid` and others; `posix` has the originals.
"""

from __future__ import annotations

import contextlib
import os
import posix
import signal
from typing import TYPE_CHECKING, Any

from proact import _core

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from proact.green.gevent_loop import Loop

__all__ = ["Child", "Children", "Signal", "Signals", "Stat"]

# The status of a child that somebody else has collected, as asyncio reports it.
_UNKNOWN = 255 << 8

# Seconds between two looks at a file: the least, and unless the program says how many.
_STAT_LEAST = 0.1
_STAT_DEFAULT = 1.0


class Signals:
    """The signals that a loop watches: one event for all of them wakes the loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._event = -1
        self._io: _core.GeventIo | None = None
        self._watchers: dict[int, list[Signal]] = {}
        self._caught: dict[int, _core.GeventSignal] = {}

    def add(self, watcher: Signal) -> None:
        number = watcher.signum
        if self._io is None:
            self._open()
        if number not in self._caught:
            self._caught[number] = _core.GeventSignal(number, self._event)
        self._watchers.setdefault(number, []).append(watcher)

    def discard(self, watcher: Signal) -> None:
        watchers = self._watchers.get(watcher.signum, [])
        if watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                self._caught.pop(watcher.signum).release()

    def _open(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._io = self._loop.io(self._event, 1, ref=False, priority=2)
        self._io.start(self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        for number, caught in [*self._caught.items()]:
            if caught.take():
                for watcher in [*self._watchers[number]]:
                    watcher._happened()

    def renew(self) -> None:
        """In a forked child: take an event of its own."""
        if self._io is None:
            return
        self._io.stop()
        posix.close(self._event)
        self._open()
        for caught in self._caught.values():
            caught.move_to(self._event)

    def close(self) -> None:
        """Catch no signal any more."""
        for caught in self._caught.values():
            caught.release()
        self._caught.clear()
        self._watchers.clear()
        if self._io is not None:
            self._io.close()
            posix.close(self._event)
            self._io = None


class Signal(_core.GeventWatcher):
    """Calls back when a signal comes."""

    def __new__(cls, loop: Loop, signum: int, ref: bool = True, priority: int | None = None) -> Self:
        if not 1 <= signum < signal.NSIG:
            raise ValueError(f"illegal signal number: {signum!r}")
        self = super().__new__(cls, loop, ref, priority)
        self.signum = signum
        return self

    signum: int

    def start(self, callback: Callable[..., object], *args: Any) -> None:
        was_active = self.active
        super().start(callback, *args)
        if not was_active:
            try:
                self.loop._signals.add(self)
            except BaseException:
                super().stop()
                raise

    def stop(self) -> None:
        super().stop()
        self.loop._signals.discard(self)

    def _format(self) -> str:
        return f" signum={self.signum}"


class Children:
    """The children that a loop watches. A child that has ended is collected once, for all who watch it."""

    def __init__(self) -> None:
        self._watchers: dict[int, list[Child]] = {}

    def add(self, watcher: Child) -> None:
        self._watchers.setdefault(watcher.pid, []).append(watcher)

    def discard(self, watcher: Child) -> None:
        watchers = self._watchers.get(watcher.pid, [])
        if watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[watcher.pid]

    def ended(self, pid: int, status: int) -> None:
        """Tell the watchers of this child, and of any child."""
        for watcher in [*self._watchers.get(pid, []), *self._watchers.get(0, [])]:
            watcher._ended(pid, status)


class Child(_core.GeventWatcher):
    """Calls back when a child process has ended.

    The engine waits for the child's pidfd. Where there is none, and for "any child", SIGCHLD is caught.
    """

    def __new__(cls, loop: Loop, pid: int, ref: bool = True) -> Self:
        if not loop.default:
            # pidfds work on any loop, but gevent's programs find out in this way where they run.
            raise TypeError("child watchers are only available on the default loop")
        self = super().__new__(cls, loop, ref)
        self.pid = pid
        return self

    pid: int
    rpid = 0
    rstatus = 0
    _pidfd = -1
    _inner: Any = None

    def start(self, callback: Callable[..., object], *args: Any) -> None:
        super().start(callback, *args)
        if self._inner is not None:
            return
        self.loop._children.add(self)
        try:
            if self.pid <= 0:
                raise OSError
            self._pidfd = os.pidfd_open(self.pid)
            self._inner = self.loop.io(self._pidfd, 1, ref=False)
        except ProcessLookupError:
            # It has ended, and its status was collected by somebody else.
            self.loop.run_callback(self._ended, self.pid, _UNKNOWN)
            return
        except OSError:
            self._inner = self.loop.signal(signal.SIGCHLD, ref=False)
            # It may have ended before its signal was caught.
            self.loop.run_callback(self._look)
        self._inner.start(self._look)

    def _look(self) -> None:
        if self._inner is None:
            return
        try:
            pid, status = posix.waitpid(self.pid or -1, os.WNOHANG)
        except ChildProcessError:
            if self.pid <= 0:
                return
            pid, status = self.pid, _UNKNOWN
        if pid == 0:
            return
        if self.pid <= 0:
            # One signal may stand for several children.
            self.loop.run_callback(self._look)
        self.loop._children.ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        self.rpid, self.rstatus = pid, status
        if self.pid > 0:
            self._let_go()
        self._happened()

    def _let_go(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            posix.close(pidfd)

    def stop(self) -> None:
        super().stop()
        self.loop._children.discard(self)
        self._let_go()

    def _format(self) -> str:
        return f" pid={self.pid} rstatus={self.rstatus}"


class Stat(_core.GeventWatcher):
    """Calls back when the status of a file has changed."""

    def __new__(
        cls,
        loop: Loop,
        path: str | bytes,
        interval: float = 0.0,
        ref: bool = True,
        priority: int | None = None,
    ) -> Self:
        self = super().__new__(cls, loop, ref, priority)
        self._paths = os.fsencode(path)
        self.path = path
        self.interval = interval
        return self

    path: str | bytes
    interval: float
    _paths: bytes
    _timer: _core.GeventTimer | None = None
    _now: os.stat_result | None = None
    _before: os.stat_result | None = None

    @property
    def attr(self) -> os.stat_result | None:
        """The status of the file; None if there is none."""
        return self._now

    @property
    def prev(self) -> os.stat_result | None:
        """The status before the last change."""
        return self._before

    def _stat(self) -> os.stat_result | None:
        try:
            return os.stat(self._paths)  # noqa: PTH116  a path is a plain string here
        except OSError:
            return None

    def start(self, callback: Callable[..., object], *args: Any) -> None:
        super().start(callback, *args)
        if self._timer is None:
            self._now = self._before = self._stat()
            self.interval = max(self.interval, _STAT_LEAST) if self.interval > 0 else _STAT_DEFAULT
            self._timer = self.loop.timer(self.interval, self.interval, ref=False)
            self._timer.start(self._look)

    def _look(self) -> None:
        status = self._stat()
        if _essence(status) != _essence(self._now):
            self._before, self._now = self._now, status
            self._happened()

    def stop(self) -> None:
        super().stop()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()


def _essence(status: os.stat_result | None) -> tuple[int, ...] | None:
    """What makes two statuses different: all but the time of the last access."""
    if status is None:
        return None
    return (
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
