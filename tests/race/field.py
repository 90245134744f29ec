"""What the threads of one round share, and the books of what has to hold in the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any


class Entry:
    """One callback. Only the loop runs it, so only one thread at a time changes `ran`."""

    __slots__ = ("cancelled", "ran", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.ran = 0
        self.cancelled = False


class Chatter(asyncio.Protocol):
    """Sends numbers to its peer, which sends them back; says what was lost."""

    def __init__(self, field: Field, echoes: bool) -> None:
        self.field, self.echoes = field, echoes
        self.transport: Any = None
        self.peer: Chatter | None = None
        self.sent = self.heard = b""
        self.lost = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if not self.echoes:
            self.speak()

    def speak(self) -> None:
        word = b"%d," % len(self.sent)
        self.sent += word
        self.transport.write(word)

    def data_received(self, data: bytes) -> None:
        if self.echoes:
            self.transport.write(data)
            return
        self.heard += data
        if not self.sent.startswith(self.heard):
            self.field.problems.append(f"heard {self.heard[-20:]!r}, which was not sent")
        if self.heard == self.sent and not self.field.ending:
            # Later, so that other callbacks have their turn.
            self.field.loop.call_soon(self.speak)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost += 1


class Field:
    """A loop, its connections, watches and operations, and the entries of all callbacks."""

    CONNECTIONS = 4
    HANDLES = 64

    def __init__(self, loop: Any, beside: Any, closes_early: bool) -> None:
        self.loop = loop
        # Runs in a thread of its own; connections go there and come back.
        self.beside = beside
        self.moves = 0
        # The loop is closed while threads are still calling, and may drop what they have scheduled.
        self.closes_early = closes_early
        self.ending = False
        self.problems: list[str] = []
        self.entries: list[Entry] = []
        self.order: dict[int, int] = {}
        self.futures: list[Any] = []
        self.handles: list[Any] = [loop.call_soon(int)] * self.HANDLES
        self.chatters: list[Chatter] = []
        self.all_chatters: list[Chatter] = []
        self.watched: list[socket.socket] = []
        self.peers: list[socket.socket] = []
        self.operations: list[Any] = []
        self.seen = 0

    def ran(self, entry: Entry) -> None:
        entry.ran += 1

    def in_order(self, entry: Entry, thread: int, number: int) -> None:
        """For callbacks that one thread schedules for the next turn: they run in the order of their calls."""
        entry.ran += 1
        if number <= self.order.get(thread, -1):
            self.problems.append(f"callback {number} of thread {thread} ran after {self.order[thread]}")
        self.order[thread] = number

    def entry(self, thread: int) -> Entry:
        entry = Entry(thread)
        self.entries.append(entry)
        return entry

    # The part of the loop's own thread.

    async def connect(self) -> Chatter:
        near, far = socket.socketpair()
        speaker, echo = Chatter(self, False), Chatter(self, True)
        speaker.peer = echo
        self.all_chatters += (echo, speaker)
        await self.loop.create_connection(lambda: echo, sock=far)
        await self.loop.create_connection(lambda: speaker, sock=near)
        return speaker

    async def begin(self) -> None:
        self.chatters = [await self.connect() for _ in range(self.CONNECTIONS)]
        for _ in range(2):
            near, far = socket.socketpair()
            near.setblocking(False)
            self.watched.append(near)
            self.peers.append(far)

    def look(self) -> None:
        self.seen += 1

    async def work(self) -> None:
        """A slice of work: replaces what other threads have ended."""
        for index, chatter in enumerate(self.chatters):
            if chatter.lost:
                self.chatters[index] = await self.connect()
        for near, far in zip(self.watched, self.peers, strict=True):
            self.loop.add_writer(near, self.look)
            far.send(b"x")
            operation = self.loop.sock_recv(near, 100)
            with contextlib.suppress(StopIteration):
                operation.send(None)
            self.operations.append(operation)
        del self.operations[:-8]
        moving = [asyncio.ensure_future(self.move(chatter.peer)) for chatter in self.chatters[:2]]
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await asyncio.gather(*moving)

    async def move(self, echo: Any) -> None:
        """Has the echo of a connection answer in the other loop for a moment."""
        # Another thread may end the connection at any moment.
        with contextlib.suppress(ConnectionAbortedError):
            transport, _ = await self.loop.hand_over(echo.transport, self.beside)
            self.moves += 1
            await asyncio.sleep(0)
            back = self.beside.hand_over(transport, self.loop)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(back, self.beside))
            self.moves += 1

    async def end(self) -> None:
        """Everything is quiet now: ends what is left, and lets it run."""
        self.ending = True
        for operation in self.operations:
            operation.close()
        self.operations.clear()
        for sock in self.watched:
            self.loop.remove_writer(sock)
        for chatter in self.all_chatters:
            if chatter.transport is not None:
                chatter.transport.abort()
        for _ in range(1000):
            await asyncio.sleep(0)
            if all(chatter.lost for chatter in self.all_chatters if chatter.transport is not None):
                break
        # Timers of the last moment, and tasks.
        await asyncio.sleep(0.01)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    def check(self) -> None:
        """Closes the books."""
        for sock in (*self.watched, *self.peers):
            sock.close()
        for entry in self.entries:
            least = 0 if entry.cancelled or self.closes_early else 1
            if not least <= entry.ran <= 1:
                self.problems.append(f"a callback of thread {entry.thread} ran {entry.ran} times")
        for chatter in self.all_chatters:
            if chatter.transport is not None and chatter.lost != 1 and not self.closes_early:
                self.problems.append(f"connection_lost was called {chatter.lost} times")
