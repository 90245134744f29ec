"""The same asyncio protocol on every event loop: asyncio's own, uvloop, rloop, and proact on each engine.

Per message, the loop's transport, ``data_received`` and the session run. The rest is the loop,
which is what is compared.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from typing import TYPE_CHECKING, Any, NoReturn, cast

from proact.lab.models import BACKLOG
from proact.lab.workloads.session import Ask, Pause

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from proact import EventLoop
    from proact.lab.workloads import Sessions
    from proact.lab.workloads.session import Extent, Session, Wanted

    #: Begins to read a piece of a file; its result is the number of bytes read.
    Read = Callable[[Extent], asyncio.Future[int]]


class Peer(asyncio.Protocol):
    """Answers the bytes that it receives; stops reading while the peer does not take the answers."""

    transport: asyncio.Transport

    def __init__(self, session: Session, read: Read) -> None:
        self.session = session
        self.read = read
        self.reading_file: asyncio.Future[int] | None = None
        self.writing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: the transports of uvloop and rloop don't inherit asyncio's, but act like them.
        self.transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.reply(self.session.feed(data))

    def reply(self, data: bytes) -> None:
        """Send ``data``; then do what the session wants, end with the session, or continue."""
        if data:
            self.transport.write(data)
        if (wanted := self.session.wanted) is not None:
            if self.reading_file is None:
                self.transport.pause_reading()
            self.reading_file = self.begin(wanted)
            self.reading_file.add_done_callback(self.file_read)
            return
        if self.session.over:
            self.transport.close()

    def begin(self, wanted: Wanted) -> asyncio.Future[int]:
        """Begin what the session wants."""
        if isinstance(wanted, Pause):
            return paused(wanted)
        return asked(wanted) if isinstance(wanted, Ask) else self.read(wanted)

    def connection_lost(self, error: Exception | None) -> None:
        for link in self.session.links:
            link.transport.close()

    def file_read(self, done: asyncio.Future[int]) -> None:
        """What was wanted is done."""
        if self.transport.is_closing():
            return
        self.reply(self.session.supply(done.result()))
        if self.reading_file is done:  # this was the last piece
            self.reading_file = None
            if self.writing and not self.transport.is_closing():
                self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.writing = False
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writing = True
        if self.reading_file is None:
            self.transport.resume_reading()


class Greedy(Peer):
    """Writes whether the peer reads or not, as a program does that has not heard of flow control."""

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


class Link(asyncio.Protocol):
    """A connection to another server: passes its bytes on to who has asked."""

    transport: asyncio.Transport
    ask: Ask
    at: int
    done: asyncio.Future[int]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.ask.take(self.at, data) and not self.done.done():
            self.done.set_result(0)


def asked(wanted: Ask) -> asyncio.Future[int]:
    """Ask all servers at once; connect to them before the first time."""
    loop = asyncio.get_running_loop()
    if not wanted.links:
        return loop.create_task(_connected(wanted))
    done: asyncio.Future[int] = loop.create_future()
    for at, (link, request) in enumerate(zip(wanted.links, wanted.requests, strict=True)):
        link.ask, link.at, link.done = wanted, at, done
        link.transport.write(request)
    return done


async def _connected(wanted: Ask) -> int:
    loop = asyncio.get_running_loop()
    made = [loop.create_connection(Link, "127.0.0.1", port) for port in wanted.ports]
    wanted.links.extend(link for _, link in await asyncio.gather(*made))
    return await asked(wanted)


def paused(wanted: Pause) -> asyncio.Future[int]:
    """A timer of the loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[int] = loop.create_future()
    loop.call_later(wanted.seconds, done.set_result, 0)
    return done


def read_in_thread(wanted: Extent) -> asyncio.Future[int]:
    """asyncio has no files: its way is a thread."""
    return asyncio.get_running_loop().run_in_executor(None, wanted.read)


def read_on_loop(wanted: Extent) -> asyncio.Future[int]:
    """proact's loop reads the file itself: by the ring or, on other engines, by a native thread."""
    loop = cast("EventLoop", asyncio.get_running_loop())
    reading = loop._read_at(wanted.fd, wanted.buffer, wanted.offset)
    return cast("asyncio.Future[int]", loop.create_task(reading))


def read_with(module: str) -> Read:
    """The way of a library of files."""
    read: Any = importlib.import_module(f"proact.lab.models.{module}").read

    def begin(wanted: Extent) -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_task(read(wanted.fd, wanted.offset, wanted.buffer))

    return begin


def new_loop(package: str, engine: str | None) -> Any:
    """An event loop of ``package``; ``engine`` names proact's engine (None for the others)."""
    factory = importlib.import_module(package).new_event_loop
    return factory() if engine is None else factory(engine=engine)


def serve(
    listener: socket.socket,
    sessions: Sessions,
    package: str,
    engine: str | None = None,
    files: str = "",
    greedy: str = "",
    *,
    tls: ssl.SSLContext | None = None,
) -> NoReturn:
    """Serve on a loop of ``package`` until the process is killed; ``files`` is the module that reads them.

    ``greedy``: without flow control.
    """
    listener.setblocking(False)
    loop = new_loop(package, engine)
    asyncio.set_event_loop(loop)
    read = read_with(files) if files else read_in_thread if engine is None else read_on_loop
    peer = Greedy if greedy else Peer
    server = loop.run_until_complete(
        loop.create_server(lambda: peer(sessions(), read), sock=listener, backlog=BACKLOG, ssl=tls)
    )
    loop.run_forever()
    raise RuntimeError(f"the loop stopped by itself, with {server!r}")
