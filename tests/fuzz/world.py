"""The interpreter: carries out a sequence on a fresh loop, lets it settle, judges what is left, and cleans
up.

A sequence runs inside one task. Ops that do not wait run in it one after the other, so the turns between
two are ops themselves; after `leave` they run while the loop does not. The first problem names the failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

from .link import Link
from .model import Deliberate, Problems
from .vocabulary import TABLE, Sequence, Value

GUARDS = 64
IDLE = 0.03
"""Seconds for which an idle loop is watched."""
SPIN = 0.1
"""A loop that spins uses at least this share of that time on the CPU; it shares its core with others."""


class World:
    """The objects that the ops work on. `lenient`: the loop is asyncio's, with its known faults."""

    def __init__(self, make_loop: Callable[[], Any], patience: float, lenient: bool) -> None:
        self.make_loop, self.patience, self.lenient = make_loop, patience, lenient
        self.loop = make_loop()
        self.problems = Problems()
        self.links: dict[int, Link] = {}
        self.retired: list[Link] = []
        self.things: dict[tuple[str, int], Any] = {}  # watches, servers, listeners by kind and slot
        self.guards: list[tuple[int, int]] = []
        self.holders: list[int] = []  # children that hold duplicates of every fd
        self.closers: list[Callable[[], Any]] = []  # called at the end
        self.checks: list[Callable[[], list[tuple[str, str]]]] = []  # like Link.waiting
        self.drains: list[Callable[[], Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []  # these must end by themselves
        self.contexts: list[dict[str, Any]] = []
        self.starved = self.slammed = False
        self.abandoned = False  # a receive was begun and dropped: its op may stay
        self.draining = False  # near the end, everything that can be received is received
        self.count = 0

    # Helpers of the ops.

    def link(self, slot: int, kind: str = "") -> Link | None:
        """The connection in the slot, if it is of the kind; "transport" means any kind with a transport."""
        link = self.links.get(slot)
        if (
            link is None
            or (kind == "transport" and link.kind == "sock")
            or kind not in ("", "transport", link.kind)
        ):
            return None
        return link

    def free(self, slot: int) -> bool:
        link = self.links.get(slot)
        if link is not None and link.over:
            self.retired.append(self.links.pop(slot))
        return slot not in self.links

    def number(self) -> int:
        self.count += 1
        return self.count

    def guard(self, count: int = 1) -> None:
        """Occupy the lowest free fd numbers, so that a second close of one hits a file that is checked."""
        for _ in range(count if len(self.guards) < GUARDS and not self.starved else 0):
            fd = os.memfd_create("guard")
            self.guards.append((fd, os.fstat(fd).st_ino))

    def step(self, value: Value) -> Any:
        """Carry out one op; returns a coroutine if it waits."""
        return TABLE[value[0]].run(self, *value[1:])

    def script(self, values: Sequence) -> None:
        for value in values:
            self.step(value)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    # Carrying out.

    def perform(self, sequence: Sequence) -> None:
        position = 0
        try:
            while position < len(sequence) and not self.problems and not self.slammed:
                value = sequence[position]
                if TABLE[value[0]].waits:
                    position = self.enter(self.inside(sequence, position))
                    self.between()
                else:
                    position += 1
                    with contextlib.suppress(Deliberate):
                        self.step(value)
            if not self.slammed:
                self.enter(self.finish())
        except Exception as error:
            self.raised(error)

    def enter(self, coroutine: Any) -> Any:
        """Run the loop until the coroutine is done, however often an op stops the loop."""
        task = self.loop.create_task(coroutine)
        task.add_done_callback(lambda _: self.loop.stop())
        while not task.done():
            self.loop.run_forever()
            if not task.done():
                self.between()
        return task.result()

    async def inside(self, sequence: Sequence, position: int) -> int:
        while position < len(sequence) and not self.problems:
            value = sequence[position]
            position += 1
            if value[0] == "leave":
                break
            if value[0] == "slam":
                return position - 1
            try:
                waiting = self.step(value)
                if waiting is not None:
                    await waiting
            except Deliberate:
                pass
            except Exception as error:
                self.raised(error, value)
                break
        return position

    def raised(self, error: Exception, value: Value | None = None) -> None:
        at = traceback.extract_tb(error.__traceback__)[-1]
        self.problems.add(
            f"raised {type(error).__name__}",
            f"{value}: {error!r} ({os.path.basename(at.filename)}:{at.lineno})",
        )

    def between(self) -> None:
        """The loop does not run: the written bytes must have left."""
        links = [
            link
            for link in self.links.values()
            if link.engine is None and link.peer_state in ("open", "shut")
        ]
        deadline = time.monotonic() + self.patience / 4
        while True:
            for link in links:
                link.take()
            short = [link for link in links if link.out.promised > link.out.got]
            if not short or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        for link in short:
            self.problems.add(
                "bytes do not leave", f"{link.name}: {link.out.promised - link.out.got} promised"
            )

    async def settle(self) -> None:
        """Wait until everything that must happen has happened; what does not is a problem. The peers take
        everything.
        """
        deadline = time.monotonic() + self.patience
        while True:
            for drain in [link.take for link in [*self.links.values(), *self.retired]] + self.drains:
                drain()
            left = [one for link in [*self.links.values(), *self.retired] for one in link.waiting()]
            left += [one for check in self.checks for one in check()]
            left += [("a task hangs", repr(task)) for task in self.tasks if not task.done()]
            if not left or self.problems:
                break
            if time.monotonic() > deadline:
                for kind, detail in left:
                    self.problems.add(kind, detail)
                break
            await asyncio.sleep(0 if time.monotonic() < deadline - self.patience * 0.98 else 0.001)
        await self.turns(3)
        for link in [*self.links.values(), *self.retired]:
            link.take()

    async def idle(self) -> None:
        """Check that a loop with nothing to do sleeps."""
        shares = []
        for _ in range(4):
            cpu, clock = time.thread_time(), time.monotonic()
            await asyncio.sleep(IDLE)
            shares.append((time.thread_time() - cpu) / (time.monotonic() - clock))
            if shares[-1] < SPIN:
                return
        if min(shares) >= SPIN:
            self.problems.add("the idle loop spins", f"{min(shares):.0%} of the CPU")

    async def finish(self) -> None:
        for name in ("drain_links", "drain_listeners"):
            TABLE[name].run(self)
        await self.settle()
        if not self.problems:
            await self.idle()
        self.release()
        for link in [*self.links.values(), *self.retired]:
            link.scripts.clear()
        ended = [link for link in [*self.links.values(), *self.retired] if link.transport is not None]
        for task in [
            task
            for link in [*self.links.values(), *self.retired]
            for task in [link.reading, *link.tasks]
            if task
        ]:
            task.cancel()
        self.drains.clear()
        while self.closers:
            self.closers.pop()()
        for link in ended:
            if not link.lost and not link.dropped:
                link.ending()
                link.transport.abort()
        await self.turns(3)
        if not self.problems:
            await self.settle()

    # The end.

    def release(self) -> None:
        """End the children that hold duplicates."""
        for pid in self.holders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            os.waitpid(pid, 0)
        self.holders.clear()

    def clear(self) -> None:
        """Close the peers and the model's own objects, and drop the rest, which finalisers close."""
        self.release()
        for close in self.closers:
            # It may raise because the loop is closed.
            with contextlib.suppress(RuntimeError):
                close()
        for link in [*self.links.values(), *self.retired]:
            link.peer.close()
            if link.sock is not None:
                link.sock.close()
            if link.made and not self.slammed and not link.dropped and link.lost != 1 and not self.problems:
                self.problems.add("no connection_lost", f"{link.name} at the end")
        for fd, inode in self.guards:
            try:
                right = os.fstat(fd).st_ino == inode
                os.close(fd)
            except OSError:
                right = False
            if not right:
                self.problems.add("an fd was closed that another owns", f"guard {fd}")
        for name in ("links", "retired", "things", "closers", "checks", "drains", "tasks", "guards"):
            getattr(self, name).clear()
