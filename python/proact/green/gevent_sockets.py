"""Owns: which methods of gevent's classes are native: of sockets, and the hub's `wait`.

`recv`, `recv_into`, `send` and `sendall` of `gevent.socket.socket` make their calls at once, and a greenlet
waits without Python in between; gevent's other methods (`accept`, `connect`, `recvfrom`, TLS) wait in this
way, too, through `_wait`. The class stays gevent's: servers, pools and monkey-patching use it as before. What
is unusual is left to gevent's own methods, which the native ones call.

`hub.wait(watcher)`, by which everything else of gevent's waits for an fd or a time, is native in any case.

A poll of the fd stays in flight between receives, and the kernel keeps the file open for it. So the loop is
told when the inner socket is closed, and once a program has asked for the fd, no poll stays.
"""

from __future__ import annotations

import _socket
import functools
import importlib
from typing import TYPE_CHECKING, Any

from gevent._hub_local import get_hub_if_exists
from greenlet import greenlet

from proact import _core

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install", "install_waits"]


_fileno = _socket.socket.fileno


def install_waits() -> None:
    """Give gevent's class of hubs its native `wait`; a second call has no effect."""
    # Modules, not names: gevent's stubs don't have these.
    hub: Any = importlib.import_module("gevent.hub")
    exceptions: Any = importlib.import_module("gevent.exceptions")
    greenlets: Any = importlib.import_module("gevent.greenlet")
    _core.configure_gevent(hub.Hub, greenlets.Greenlet, greenlet, exceptions.InvalidSwitchError)
    _core.install_gevent_wait(hub.Hub)


def install() -> None:
    """Give gevent's class of sockets its native methods; a second call has no effect."""
    module: Any = importlib.import_module("gevent._socket3")
    inner = module.socket._gevent_sock_class
    if "close" in vars(inner):
        return
    sample = inner(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        _core.install_gevent_calls(module.socket, sample)
    finally:
        sample.close()
    inner.close = _telling(inner.close)
    inner.detach = _telling(inner.detach)
    module.socket.fileno = _lending(module.socket.fileno)


def _telling(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A method of the inner socket, of which the loop is told before it is called."""

    @functools.wraps(method)
    def told(self: Any) -> Any:
        hub: Any = get_hub_if_exists()
        if hub is not None and isinstance(hub.loop, _core.GeventLoop):
            hub.loop._let_go(_fileno(self))
        return method(self)

    return told


def _lending(method: Callable[[Any], int]) -> Callable[[Any], int]:
    """`fileno`, after which the program may use the fd."""

    @functools.wraps(method)
    def fileno(self: Any) -> int:
        event = self._read_event
        if isinstance(event, _core.GeventIo):
            event._lend()
        return method(self)

    return fileno
