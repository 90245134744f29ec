"""Owns: servers whose handler is plain code, on greenlets, threads or processes, as a setting says.

In every model the handler runs in a greenlet, so all of `proact.green` works in it. In the models "threads"
and "processes" each worker has a loop of its own and serves one connection at a time: if a library blocks in
C, it keeps only its worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket as _socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent

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


class _Acceptor:
    """Accepts in a greenlet of its own. `leave` lets it end what it has begun."""

    def __init__(self, listener: socket, take: Callable[[socket], object]) -> None:
        self._listener = listener
        self._take = take
        self._busy = False
        self._leaves = False
        self.greenlet = spawn(self._run)

    def _run(self) -> None:
        while not self._leaves:
            try:
                connection, _ = self._listener.accept()
            except ConnectionError:
                continue
            self._busy = True
            self._take(connection)
            self._busy = False

    def leave(self) -> None:
        """Accept no more. Only the loop calls this."""
        self._leaves = True
        if not self._busy and self.greenlet._greenlet is not None:
            # Now, not by `kill`: before a kill has its turn a connection may be accepted.
            self.greenlet._interrupt(GreenletExit())


class Server:
    """What `serve` runs."""

    def __init__(
        self,
        handler: Callable[[Any], object],
        listener: _socket.socket,
        context: ssl.SSLContext | None,
        watchdog: float | None,
    ) -> None:
        self._handler = handler
        self._listener = listener
        self._context = context
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._acceptors: set[_Acceptor] = set()
        # Greenlets that wait for the last connections of a model that is left.
        self._draining: set[Greenlet[Any]] = set()
        self._children: list[int] = []
        self._stopping = False
        # Each change of the model begins a phase. All but the first have a thread of their own.
        self._phase = 0
        self._threads: list[threading.Thread] = []
        self.model = ""
        """The model on which new connections are served."""
        self.address = listener.getsockname()

    def stop(self) -> None:
        """Make `serve` return: accept no more, and kill what still runs. Any thread may call it."""
        with self._lock:
            self._stopping = True
            greenlets = [*self._draining, *(acceptor.greenlet for acceptor in self._acceptors)]
            children = list(self._children)
        for greenlet in greenlets:
            _in_its_loop(greenlet, partial(greenlet.kill, block=False))
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    def switch(self, model: Literal["green", "threads"], workers: int | None = None) -> None:
        """Serve new connections on another model from now on, or with another number of workers.

        Connections that are served already go on to their end where they are. Any thread may call it, for
        instance when a library turns out to block. To or from processes nothing can be switched: ValueError.
        """
        if model not in MODELS or "processes" in (model, self.model):
            raise ValueError(f"a server can't be switched from {self.model!r} to {model!r}")
        with self._lock:
            if self._stopping:
                return
            self._phase += 1
            self.model = model
            acceptors = list(self._acceptors)
            name = f"green server, phase {self._phase}"
            thread = threading.Thread(
                target=self._run_phase, args=(model, workers, self._phase), name=name, daemon=True
            )
            self._threads.append(thread)
        thread.start()
        for acceptor in acceptors:
            _in_its_loop(acceptor.greenlet, acceptor.leave)

    def _run_phase(self, model: str, workers: int | None, phase: int) -> None:
        """Serve until the model is changed, in a thread that has no loop."""
        try:
            if model == "green":
                run_main(self._on_greenlets, _workers(model, workers), phase, watchdog=self._watchdog)
            else:
                self._on_threads(_workers(model, workers), phase)
        except BaseException:
            logger.exception("Serving on the model %s has failed", model)
            self.stop()

    def _run(self, model: str, workers: int | None, inside: bool) -> None:
        """Serve until `stop`; begin with this model."""
        number = _workers(model, workers)
        try:
            if model == "processes":
                self._on_processes(number)
            elif model == "threads":
                self._on_threads(number, 0)
            elif inside:
                self._on_greenlets(number, 0)
            else:
                run_main(self._on_greenlets, number, 0, watchdog=self._watchdog)
            self._join()
        finally:
            self.stop()
            self._join()

    def _join(self) -> None:
        """Wait for the other phases, also for those that begin meanwhile."""
        index = 0
        while index < len(self._threads):
            _join(self._threads[index])
            index += 1

    def _accept(self, listener: socket, take: Callable[[socket], object], phase: int) -> None:
        """Accept in a greenlet, until `stop` or `switch`."""
        acceptor = _Acceptor(listener, take)
        with self._lock:
            if self._stopping:
                acceptor.greenlet.kill(block=False)
            elif phase != self._phase:
                _in_its_loop(acceptor.greenlet, acceptor.leave)
            self._acceptors.add(acceptor)
        try:
            acceptor.greenlet.get()
        finally:
            acceptor.greenlet.kill()
            with self._lock:
                self._acceptors.discard(acceptor)

    def _drain(self, pool: Pool) -> None:
        """Wait until the connections of a model that is left have ended, or until `stop`."""
        with self._lock:
            if self._stopping:
                return
            draining = spawn(pool.join)
            self._draining.add(draining)
        try:
            draining.get()
        finally:
            draining.kill()
            with self._lock:
                self._draining.discard(draining)

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

    def _on_greenlets(self, workers: int, phase: int) -> None:
        with self._green_listener() as listener:
            pool = Pool(workers)
            try:
                self._accept(listener, lambda connection: pool.spawn(self._handle, connection), phase)
                self._drain(pool)
            finally:
                pool.kill()

    def _one_by_one(self, phase: int) -> None:
        with self._green_listener() as listener:
            self._accept(listener, self._handle, phase)

    def _on_threads(self, workers: int, phase: int) -> None:
        threads = [
            threading.Thread(
                target=run_main,
                args=(self._one_by_one, phase),
                kwargs={"watchdog": None},
                name=f"green {phase}.{n}",
            )
            for n in range(workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                _join(thread)
        except BaseException:
            self.stop()
            raise
        finally:
            for thread in threads:
                thread.join()

    def _on_processes(self, workers: int) -> None:
        with self._lock:
            for _ in range(0 if self._stopping else workers):
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
            run_main(self._one_by_one, 0, watchdog=None)
            code = 0
        except BaseException:
            logger.exception("A serving process has failed")
        finally:
            os._exit(code)


def _workers(model: str, workers: int | None) -> int:
    """How many serve, if a program does not say."""
    return workers or {"green": 10_000, "threads": 32, "processes": os.cpu_count() or 1}[model]


def _in_its_loop(greenlet: Greenlet[Any], call: Callable[[], object]) -> None:
    """Make a call in the thread of a greenlet, unless its loop is closed already."""
    with contextlib.suppress(RuntimeError):
        greenlet.hub.loop.call_soon_threadsafe(call)


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
    keeps one worker only. `Server.switch` changes the model while it serves.

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
    own = not isinstance(address, _socket.socket)
    listener = listen(address) if own else address
    try:
        server = Server(handler, listener, ssl, watchdog)
        server.model = model
        if started is not None:
            started(server)
        if inside and model == "green" and watchdog is not None and hub_here().watchdog is None:
            watch(watchdog)
        server._run(model, workers, inside)
    finally:
        if own:
            listener.close()
