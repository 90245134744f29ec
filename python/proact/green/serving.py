"""Owns: servers whose handler is plain code, on greenlets, threads or processes, as a setting says.

In every model the handler runs in a greenlet, so all of `proact.green` works in it. In the models "threads"
and "processes" each worker has a loop of its own and serves one connection at a time: if a library blocks in
C, it keeps only its worker.
"""

from __future__ import annotations

import logging
import os
import signal
import socket as _socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from .bridge import await_
from .greenlets import Bridge, Greenlet, Spawned, spawn
from .hub import hub_here
from .pools import Pool
from .running import run_main
from .secure import wrap_socket
from .sockets import socket
from .watchdog import watch

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Literal

__all__ = ["Server", "listen", "serve"]

logger = logging.getLogger("proact.green")

MODELS = ("green", "threads", "processes")


def listen(address: Any, *, backlog: int = 1024, reuse_port: bool = False) -> socket:
    """A listening socket: TCP for `(host, port)`, a Unix socket for a path."""
    if isinstance(address, (str, bytes)):
        made = socket(_socket.AF_UNIX)
        try:
            made.bind(address)
            made.listen(backlog)
        except BaseException:
            made.close()
            raise
        return made
    family = _socket.AF_INET6 if ":" in address[0] else _socket.AF_INET
    plain = _socket.create_server(address, family=family, backlog=backlog, reuse_port=reuse_port)
    return socket(plain.family, plain.type, plain.proto, fileno=plain.detach())


class Server:
    """What `serve` runs."""

    def __init__(
        self,
        handler: Callable[[Any], object],
        listener: _socket.socket,
        model: str,
        workers: int,
        context: ssl.SSLContext | None,
    ) -> None:
        self._handler = handler
        self._listener = listener
        self._workers = workers
        self._context = context
        self._run = {
            "green": self._on_greenlets,
            "threads": self._on_threads,
            "processes": self._on_processes,
        }[model]
        self._lock = threading.Lock()
        self._accepting: set[Greenlet[Any]] = set()
        self._children: list[int] = []
        self._stopping = False
        self.model = model
        self.address = listener.getsockname()

    def stop(self) -> None:
        """Make `serve` return: accept no more, and kill what still runs. Any thread may call it."""
        with self._lock:
            self._stopping = True
            accepting = list(self._accepting)
            children = list(self._children)
        for greenlet in accepting:
            try:
                greenlet.hub.loop.call_soon_threadsafe(partial(greenlet.kill, block=False))
            except RuntimeError:
                pass  # its loop is closed already
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    def _accept(self, listener: socket, take: Callable[[socket], object]) -> None:
        """Accept in a greenlet, until `stop`."""

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except ConnectionError:
                    continue
                take(connection)

        accepting = spawn(loop)
        with self._lock:
            if self._stopping:
                accepting.kill(block=False)
            self._accepting.add(accepting)
        try:
            accepting.get()
        finally:
            accepting.kill()
            with self._lock:
                self._accepting.discard(accepting)

    def _handle(self, connection: socket) -> None:
        with connection:
            try:
                if self._context is None:
                    self._handler(connection)
                else:
                    with wrap_socket(connection, self._context, server_side=True) as secure:
                        self._handler(secure)
            except ConnectionError:
                pass  # the peer has gone
            except Exception:
                logger.exception("The handler of a connection has failed")

    def _green_listener(self) -> socket:
        return socket(
            self._listener.family, self._listener.type, self._listener.proto, os.dup(self._listener.fileno())
        )

    def _on_greenlets(self) -> None:
        with self._green_listener() as listener:
            pool = Pool(self._workers)
            try:
                self._accept(listener, lambda connection: pool.spawn(self._handle, connection))
            finally:
                pool.kill()

    def _one_by_one(self) -> None:
        with self._green_listener() as listener:
            self._accept(listener, self._handle)

    def _on_threads(self) -> None:
        threads = [
            threading.Thread(
                target=run_main, args=(self._one_by_one,), kwargs={"watchdog": None}, name=f"green {n}"
            )
            for n in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                _join(thread)
        finally:
            self.stop()
            for thread in threads:
                thread.join()

    def _on_processes(self) -> None:
        with self._lock:
            for _ in range(0 if self._stopping else self._workers):
                pid = os.fork()
                if not pid:
                    self._child()
                self._children.append(pid)
        try:
            for pid in list(self._children):
                os.waitpid(pid, 0)
                with self._lock:
                    self._children.remove(pid)
        finally:
            self.stop()
            for pid in self._children:
                os.waitpid(pid, 0)

    def _child(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._lock = threading.Lock()  # the parent's is taken while it forks
        self._children.clear()
        code = 1
        try:
            run_main(self._one_by_one, watchdog=None)
            code = 0
        except BaseException:
            logger.exception("A serving process has failed")
        finally:
            os._exit(code)


def _join(thread: threading.Thread) -> None:
    if isinstance(getcurrent(), (Spawned, Bridge)):
        await_(hub_here().loop.run_in_executor(None, thread.join))
    else:
        thread.join()


def serve(
    handler: Callable[[Any], object],
    address: Any,
    *,
    model: Literal["green", "threads", "processes"] = "green",
    workers: int | None = None,
    ssl: ssl.SSLContext | None = None,
    watchdog: float | None = 0.05,
    started: Callable[[Server], object] | None = None,
) -> None:
    """Serve until `Server.stop`: call `handler(connection)` for each connection, and close it afterwards.

    `address`: `(host, port)`, a path, or a listening socket, which the caller keeps. `model` says what
    handlers run on, and the handler is the same in all: "green": up to `workers` (10,000) greenlets of one
    thread; "threads": `workers` threads (32), in parallel if Python is free-threaded; "processes": `workers`
    processes (one for each core), forked, so not in a running loop. With the last two, a handler that blocks
    keeps one worker only.

    `started` is called with the Server once it listens. A handler that does not yield for `watchdog` seconds
    is logged with its stack (model "green"). Exceptions of handlers are logged. May be called with or without
    a running loop, but not in a coroutine: `await green.run(green.serve, ...)`.
    """
    if model not in MODELS:
        raise ValueError(f"model is one of {', '.join(MODELS)}, not {model!r}")
    inside = isinstance(getcurrent(), (Spawned, Bridge))
    if model == "processes" and inside:
        raise RuntimeError(
            "processes are forked before a loop runs: call serve(model='processes') without one"
        )
    number = workers or {"green": 10_000, "threads": 32, "processes": os.cpu_count() or 1}[model]
    own = not isinstance(address, _socket.socket)
    listener = listen(address) if own else address
    try:
        server = Server(handler, listener, model, number, ssl)
        if started is not None:
            started(server)
        if model != "green":
            server._run()
        elif inside:
            if watchdog is not None and hub_here().watchdog is None:
                watch(watchdog)
            server._run()
        else:
            run_main(server._run, watchdog=watchdog)
    finally:
        if own:
            listener.close()
