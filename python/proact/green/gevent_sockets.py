"""Owns: which methods of gevent's class of sockets are native.

`recv`, `recv_into`, `send` and `sendall` of `gevent.socket.socket` make their calls at once, and a greenlet
waits without Python in between; gevent's other methods (`accept`, `connect`, `recvfrom`, TLS) wait in this
way, too, through `_wait`. The class stays gevent's: servers, pools and monkey-patching use it as before. What
is unusual is left to gevent's own methods, which the native ones call.
"""

from __future__ import annotations

import importlib
from typing import Any

from greenlet import greenlet

from proact import _core

__all__ = ["install"]


def install() -> None:
    """Give gevent's class of sockets its native methods; a second call has no effect."""
    # Modules, not names: gevent's stubs don't have these.
    module: Any = importlib.import_module("gevent._socket3")
    hub: Any = importlib.import_module("gevent.hub")
    exceptions: Any = importlib.import_module("gevent.exceptions")
    greenlets: Any = importlib.import_module("gevent.greenlet")
    _core.configure_gevent(hub.Hub, greenlets.Greenlet, greenlet, exceptions.InvalidSwitchError)
    _core.install_gevent_calls(module.socket, module.socket._gevent_sock_class)
