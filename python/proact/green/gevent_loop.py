"""A loop for gevent: unmodified gevent programs on proact's engine, with asyncio tasks in the same thread.

Chosen by the environment, `GEVENT_LOOP=proact.green.gevent_loop.Loop`, or by `use()` before gevent's hub
exists. gevent's hub, sockets, pools and monkey-patching stay gevent's; the hot methods of its sockets become
native (`gevent_sockets`), unless `use(sockets=False)` or `GEVENT_LOOP=proact.green.gevent_loop.ReadinessLoop`
says otherwise. The loop is native (`_core.GeventLoop`); this file completes it with what runs once a loop, an
error or a child.

`gevent.get_hub().loop.aio` is the asyncio event loop that runs in the same thread: `aio.create_task(...)`
starts a task beside the greenlets. A greenlet does not see it as the running loop; asyncio's callbacks and
tasks do.

gevent replaces functions in Python's modules. What is used here is not replaced, or replaced on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from proact import _core

try:
    from gevent import _interfaces
    from gevent._config import config
    from gevent._hub_local import get_hub_if_exists
    from gevent.exceptions import HubDestroyed
    from zope.interface import classImplements, implementer
except ImportError as error:
    raise ImportError(f"proact.green.gevent_loop needs gevent: pip install gevent ({error})") from error

from proact.green import gevent_sockets
from proact.green.gevent_beside import Beside
from proact.green.gevent_watchers import Child, Children, Signal, Signals, Stat

if TYPE_CHECKING:
    from types import TracebackType

    from proact.loop import EventLoop

__all__ = [
    "EVENTS",
    "READ",
    "WRITE",
    "Loop",
    "ReadinessLoop",
    "get_header_version",
    "get_version",
    "loop",
    "recommended_backends",
    "supported_backends",
    "use",
]

READ = 1
WRITE = 2


class _Events:
    """Stands for the events that have come, among the arguments of an `io` watcher."""

    def __repr__(self) -> str:
        return "gevent.core.EVENTS"


EVENTS = _Events()


def _events_to_str(events: int) -> str:
    names = {READ: "READ", WRITE: "WRITE"}
    return "|".join(name for bit, name in names.items() if events & bit)


def get_version() -> str:
    """The loop and its version, for programs that print it."""
    from proact import __version__

    return f"proact-{__version__}"


get_header_version = get_version


def supported_backends() -> list[str]:
    """The engines, in the order of preference."""
    return list(_core.ENGINES)


recommended_backends = supported_backends


def _engine(flags: Any) -> str:
    """The engine that gevent's `flags` (GEVENT_BACKEND, or an argument) name; "auto" for none."""
    if flags is None:
        return "auto"
    names = [name.strip() for name in flags.split(",")] if isinstance(flags, str) else flags
    if not isinstance(names, list | tuple):
        raise TypeError(f"flags must be names of engines, not {flags!r}")
    if unknown := [name for name in names if name not in (*_core.ENGINES, "auto")]:
        raise ValueError(f"no engine is named {unknown[0]!r}; there are {', '.join(_core.ENGINES)}")
    return names[0] if names else "auto"


@implementer(_interfaces.ILoop)
class Loop(_core.GeventLoop):
    """A loop as gevent wants it (`ILoop`), on an event loop of its own. gevent makes one for each hub.

    `flags` name an engine, as GEVENT_BACKEND does; without them it is chosen as `proact.new_event_loop` does.
    """

    MAXPRI = 2
    MINPRI = -2
    CALLBACK_CHECK_COUNT = 50
    approx_timer_resolution = 1e-6
    starting_timer_may_update_loop_time = True
    WatcherType = _core.GeventWatcher

    #: An object with a method `handle_error`, or a function: told of each error. gevent's hub sets itself.
    error_handler: Any = None

    #: Whether the hot methods of gevent's sockets become native, for the whole process.
    sockets = True

    _aio: EventLoop | None = None

    def __init__(self, flags: Any = None, default: bool | None = None) -> None:
        self._default = default is None or bool(default)
        self._engine = _engine(flags)
        self._signals = Signals(self)
        self._children = Children()
        gevent_sockets.install_waits()
        if self.sockets:
            gevent_sockets.install()
        self._attach_new()

    def _attach_new(self) -> EventLoop:
        self._aio = aio = Beside(self._engine, self)
        self._attach(aio)
        return aio

    @property
    def aio(self) -> EventLoop | None:
        """The asyncio event loop that runs in the same thread; None once the loop is destroyed."""
        if self._aio is not None and self._is_forked():
            self._renew()
        return self._aio

    # Running.

    def run(self, nowait: bool = False, once: bool = False) -> None:
        """Run until nothing is left to go on for: no watcher that counts, no callback, no task."""
        aio = self.aio
        if aio is None:
            raise ValueError("operation on destroyed loop")
        before = aio._take_over()
        thread, aio._thread_id = aio._thread_id, threading.get_ident()
        try:
            self._run(bool(nowait), bool(once))
        finally:
            # Another one in a forked child; none if it was destroyed.
            if (aio := self._aio) is not None:
                aio._thread_id = thread
                aio._let_go(before)

    def _enter_asyncio(self) -> tuple[Any, ...]:
        before = (asyncio._get_running_loop(), *sys.get_asyncgen_hooks())
        aio: Any = self._aio
        sys.set_asyncgen_hooks(aio._asyncgen_firstiter_hook, aio._asyncgen_finalizer_hook)
        asyncio._set_running_loop(aio)
        return before

    def _leave_asyncio(self, before: tuple[Any, ...]) -> None:
        running, *hooks = before
        asyncio._set_running_loop(running)
        sys.set_asyncgen_hooks(*hooks)

    def _asyncio_waits(self) -> bool:
        aio: Any = self._aio
        if aio is None:
            return False
        return self._has_asyncio_work() or bool(asyncio.all_tasks(aio))

    def reinit(self) -> None:
        """Do nothing: a forked child takes a new engine when it first needs one, since most only exec.

        asyncio's tasks and connections stay with the parent.
        """

    def _renew(self) -> None:
        """Take a new engine in a forked child."""
        old: Any = self._aio
        aio: Any = self._attach_new()
        if old._thread_id is not None:
            aio._take_over()
            aio._thread_id, old._thread_id = old._thread_id, None
        self._signals.renew()
        # Not `close`, which would end the parent's children.
        with contextlib.suppress(Exception):
            old._shutdown()

    def destroy(self) -> bool | None:
        """End everything and close the engine; True the first time."""
        aio, self._aio = self._aio, None
        if aio is None:
            return None
        self._signals.close()
        self._detach()
        aio._thread_id = None
        # It is refused if the hub's thread has ended within `run`. Then the engine ends with the object.
        with contextlib.suppress(RuntimeError):
            aio.close()
        return True

    # Errors.

    def handle_error(
        self,
        context: object,
        type: type[BaseException],
        value: BaseException,
        tb: TracebackType | None,
    ) -> None:
        """Tell the hub that something has failed: a watcher, a callback, or the loop itself (None)."""
        if type is HubDestroyed:
            self._forget_callbacks()
            self.break_()
            return
        handler = self.error_handler
        if handler is None:
            self._default_handle_error(context, type, value, tb)
        else:
            # Looked up each time: programs set `hub.handle_error`.
            getattr(handler, "handle_error", handler)(context, type, value, tb)

    def _default_handle_error(
        self,
        context: object,
        type: type[BaseException],
        value: BaseException,
        tb: TracebackType | None,
    ) -> None:
        traceback.print_exception(type, value, tb)
        self.break_()

    # Watchers that are made in Python.

    def signal(self, signum: int, ref: bool = True, priority: int | None = None) -> Signal:
        """Call back when a signal comes, in this loop's thread. Python's own handler is not called."""
        return Signal(self, signum, ref, priority)

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> Child:
        """Call back when a child process has ended, and collect its status; pid 0: any child."""
        return Child(self, pid, ref)

    def stat(
        self, path: str | bytes, interval: float = 0.0, ref: bool = True, priority: int | None = None
    ) -> Stat:
        """Call back when what os.stat() returns for a path has changed, looking every `interval` seconds."""
        return Stat(self, path, interval, ref, priority)

    def install_sigchld(self) -> None:
        """Do nothing: children are watched without SIGCHLD, which stays the program's."""

    def reset_sigchld(self) -> None:
        """Do nothing, as `install_sigchld`."""

    # What programs may ask.

    @property
    def default(self) -> bool:
        """Whether this is the loop of the main thread's hub."""
        return self._default and self._aio is not None

    @property
    def ptr(self) -> Any:
        """The event loop below; None once the loop is destroyed."""
        return self._aio

    @property
    def backend(self) -> str:
        """The engine's name."""
        return self._aio.engine if self._aio is not None else "destroyed"

    @property
    def backend_int(self) -> int:
        """The engine's place in the order of preference."""
        return list(_core.ENGINES).index(self.backend) if self._aio is not None else 0

    def fileno(self) -> None:
        """None: the engine's fd is its own."""

    def verify(self) -> None:
        """Do nothing; libev checks its data here."""

    def update(self) -> None:
        """An old name of `update_now`."""
        warnings.warn("'update' is deprecated; use 'update_now'", DeprecationWarning, stacklevel=2)
        self.update_now()

    def _format(self) -> str:
        if self._aio is None:
            return "destroyed"
        default = " default" if self.default else ""
        return (
            f"backend={self.backend}{default} pending={self.pendingcnt} ref={self.activecnt}"
            f" callbacks={self._callback_count}"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} {self._format()}>"


class ReadinessLoop(Loop):
    """The loop, with gevent's sockets as they are: each waits for its fd, and then makes its call."""

    sockets = False


# For code that was written when `async` was no keyword.
setattr(Loop, "async", Loop.async_)

classImplements(_core.GeventCallback, _interfaces.ICallback)
classImplements(_core.GeventWatcher, _interfaces.IWatcher)

# The name that `gevent.core` has for the class.
loop = Loop


def use(*, sockets: bool = True) -> None:
    """Make gevent use this loop. Raises RuntimeError if gevent has made a hub on another one already.

    `sockets`: whether the hot methods of gevent's class of sockets become native.
    """
    hub = get_hub_if_exists()
    if hub is not None and not isinstance(hub.loop, Loop):
        raise RuntimeError(
            f"gevent runs on {type(hub.loop).__module__} already: call proact.green.gevent_loop.use() before"
            " anything makes gevent's hub (a spawn, a sleep, a socket), or set"
            " GEVENT_LOOP=proact.green.gevent_loop.Loop"
        )
    config.loop = Loop if sockets else ReadinessLoop
