"""Owns: the green copies of the standard library's modules that `patch` gives to a package.

A copy has all names of the original; those that would block the thread are replaced by green ones.
"""

from __future__ import annotations

import functools
import queue
import select
import selectors
import socket as plain_socket
import ssl
import subprocess
import threading
import time
import types
from typing import TYPE_CHECKING, Any

from .. import _core
from . import locks, popen, processes, queues, sockets, timeouts
from .bridge import await_
from .hub import hub_here
from .secure import SSLSocket, wrap_socket
from .threadlike import Thread, Timer, current_thread, get_ident, local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["COPIES"]


def copy_of(module: types.ModuleType, **replaced: Any) -> types.ModuleType:
    """A module with the names of another one, some of them replaced."""
    made = types.ModuleType(module.__name__, module.__doc__)
    vars(made).update(vars(module))
    vars(made).update(replaced)
    return made


def with_globals(function: Any, module: types.ModuleType) -> Any:
    """The same function, as if it was defined in another module."""
    made = types.FunctionType(
        function.__code__, vars(module), function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(made, function)


def class_with_globals(kind: type, module: types.ModuleType) -> type:
    """The same class, with methods as if they were defined in another module."""
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    for name, value in own.items():
        if isinstance(value, types.FunctionType):
            own[name] = with_globals(value, module)
    return type(kind)(kind.__name__, kind.__bases__, own)


def in_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that blocks, called in a thread while the greenlet waits."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return await_(hub_here().loop.run_in_executor(None, functools.partial(function, *args, **kwargs)))

    return call


def _fromfd(fd: int, family: int, type: int, proto: int = 0) -> sockets.socket:
    return sockets.socket(family, type, proto, fileno=plain_socket.dup(fd))


class _Ready:
    """Waits until one of several fds is ready, by an epoll of their own on which the greenlet waits."""

    def __init__(self, fds: dict[int, int]) -> None:
        self._epoll = select.epoll()
        for fd, mask in fds.items():
            self._epoll.register(fd, mask)

    def wait(self, seconds: float | None) -> None:
        """Return when one is ready, or after `seconds`."""
        with self._epoll:
            if seconds is None:
                _core.green_when(self._epoll, False, bool)
            else:
                with timeouts.Timeout(seconds, False):
                    _core.green_when(self._epoll, False, bool)


def _fd(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def _select(
    readers: Iterable[Any], writers: Iterable[Any], others: Iterable[Any], timeout: float | None = None
) -> tuple[list[Any], list[Any], list[Any]]:
    lists = list(readers), list(writers), list(others)
    ready = select.select(*lists, 0)
    if any(ready) or timeout == 0:
        return ready
    fds: dict[int, int] = {}
    for files, mask in zip(lists, (select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI), strict=True):
        for file in files:
            fds[_fd(file)] = fds.get(_fd(file), 0) | mask
    _Ready(fds).wait(timeout)
    return select.select(*lists, 0)


class Poll:
    """`select.poll()` for greenlets."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._fds: dict[int, int] = {}

    def register(self, file: Any, mask: int = select.POLLIN | select.POLLPRI | select.POLLOUT) -> None:
        self._poll.register(file, mask)
        self._fds[_fd(file)] = mask

    def modify(self, file: Any, mask: int) -> None:
        self._poll.modify(file, mask)
        self._fds[_fd(file)] = mask

    def unregister(self, file: Any) -> None:
        self._poll.unregister(file)
        del self._fds[_fd(file)]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        ready = self._poll.poll(0)
        if ready or timeout == 0:
            return ready
        _Ready(self._fds).wait(None if timeout is None or timeout < 0 else timeout / 1000)
        return self._poll.poll(0)


class Selector(selectors.PollSelector):
    """What `Popen.communicate` waits by."""

    _selector_cls = Poll


def _socket() -> types.ModuleType:
    return copy_of(
        plain_socket,
        socket=sockets.socket,
        SocketType=sockets.socket,
        create_connection=sockets.create_connection,
        create_server=sockets.create_server,
        socketpair=sockets.socketpair,
        fromfd=_fromfd,
        getaddrinfo=sockets.getaddrinfo,
        **{
            name: in_a_thread(getattr(plain_socket, name))
            for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "getfqdn")
        },
    )


@functools.cache
def _context() -> type[ssl.SSLContext]:
    # Made when it is needed: gevent patches no program in which the class has a subclass already.

    class SSLContext(ssl.SSLContext):
        """A context whose sockets are green."""

        sslsocket_class = SSLSocket

        def wrap_socket(self, sock: plain_socket.socket, *args: Any, **kwargs: Any) -> Any:
            names = (
                "server_side",
                "do_handshake_on_connect",
                "suppress_ragged_eofs",
                "server_hostname",
                "session",
            )
            return wrap_socket(sock, self, **dict(zip(names, args, strict=False)), **kwargs)

    return SSLContext


def _ssl() -> types.ModuleType:
    made = copy_of(ssl, SSLContext=_context(), SSLSocket=SSLSocket, socket=sockets.socket)
    made.create_default_context = with_globals(ssl.create_default_context, made)  # type: ignore[attr-defined]
    https = with_globals(ssl._create_unverified_context, made)
    made._create_unverified_context = https  # type: ignore[attr-defined]
    made._create_default_https_context = made.create_default_context  # type: ignore[attr-defined]
    made._create_stdlib_context = https  # type: ignore[attr-defined]
    return made


def _select_module() -> types.ModuleType:
    made = copy_of(select, select=_select, poll=Poll)
    # So that a program which looks for them takes `poll`.
    vars(made).pop("epoll")
    return made


def _threading() -> types.ModuleType:
    made = copy_of(
        threading,
        **{name: getattr(locks, name) for name in locks.__all__},
        Thread=Thread,
        Timer=Timer,
        local=local,
        current_thread=current_thread,
        get_ident=get_ident,
    )
    vars(made).update(Barrier=class_with_globals(threading.Barrier, made))
    return made


def _queue() -> types.ModuleType:
    names = {name: getattr(queues, name) for name in queues.__all__}
    return copy_of(queue, SimpleQueue=queues.Queue, **names)


def _subprocess() -> types.ModuleType:
    made = copy_of(subprocess)
    for name, value in vars(subprocess).items():
        if isinstance(value, types.FunctionType) and value.__module__ == "subprocess":
            setattr(made, name, with_globals(value, made))
    for name in ("run", "call", "check_call", "check_output"):
        setattr(made, name, getattr(processes, name))
    # What waits for the pipes is a function of the module and a class that it looks up there.
    communicate = with_globals(vars(subprocess.Popen)["_communicate"], made)
    waits = type("Popen", (popen.Popen,), {"_communicate": communicate})
    vars(made).update(_PopenSelector=Selector, Popen=waits)
    return made


COPIES: dict[str, Callable[[], types.ModuleType]] = {
    "socket": _socket,
    "ssl": _ssl,
    "select": _select_module,
    "time": lambda: copy_of(time, sleep=timeouts.sleep),
    "threading": _threading,
    "queue": _queue,
    "subprocess": _subprocess,
}
"""What makes the copy of each module."""
