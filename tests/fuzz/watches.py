"""Ops on add_reader and add_writer: watch and close fds, also with live duplicates and with numbers used
again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any

from .vocabulary import SLOT, SMALL, op


def readable(fd: Any) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class Watch:
    """A pipe or a socket pair whose reading end is watched; `far` is the other end."""

    def __init__(self, world: Any, kind: str) -> None:
        self.world, self.kind = world, kind
        if kind == "pipe":
            self.near, self.far = os.pipe()
            os.set_blocking(self.near, False)
            os.set_blocking(self.far, False)
        else:
            self.near, self.far = socket.socketpair()
            self.near.setblocking(False)
            self.far.setblocking(False)
        self.watched = self.open = False
        self.held = False
        self.writing = False  # whether there is a writer; a second one would replace it
        self.sent = self.got = 0

    def fileno(self) -> int:
        return self.near if self.kind == "pipe" else self.near.fileno()

    def called(self) -> None:
        if not self.open or not self.watched:
            self.world.problems.add("a reader is called that was removed", self.kind)
            return
        if not readable(self.near):
            self.world.problems.add("a reader is called for nothing", self.kind)
            return
        self.got += len(os.read(self.fileno(), 1 << 16))

    def send(self, size: int) -> None:
        try:
            self.sent += os.write(self.far if self.kind == "pipe" else self.far.fileno(), bytes(size))
        except BlockingIOError:
            pass
        except OSError:
            if self.open:
                raise

    def close_near(self) -> None:
        self.open = False
        os.close(self.near) if self.kind == "pipe" else self.near.close()

    def close(self) -> None:
        if self.watched and not self.world.slammed:
            self.watched = False
            self.world.loop.remove_reader(self.near)
        if self.open:
            self.close_near()
        os.close(self.far) if self.kind == "pipe" else self.far.close()


@op("watch", 6, SLOT, ("socket", "pipe"))
def watch(world: Any, slot: int, kind: str) -> None:
    old = world.things.get(("watch", slot))
    if old is not None and old.open:
        if not old.watched:
            old.watched = True
            world.loop.add_reader(old.near, old.called)
        return
    new = world.things["watch", slot] = Watch(world, kind)
    new.open = new.watched = True
    world.loop.add_reader(new.near, new.called)
    world.closers.append(new.close)
    world.checks.append(
        lambda: [("a reader is not called", kind)] if new.open and new.watched and new.got < new.sent else []
    )


@op("watch", 6, SLOT, SMALL)
def poke(world: Any, slot: int, size: int) -> None:
    if found := world.things.get(("watch", slot)):
        found.send(size)


@op("watch", 3, SLOT)
def unwatch(world: Any, slot: int) -> None:
    found = world.things.get(("watch", slot))
    if found and found.open:
        expected, found.watched = found.watched, False
        if world.loop.remove_reader(found.near) is not expected:
            world.problems.add("remove_reader answers wrong", f"expected {expected}")


@op("watch", 4, SLOT, ("removed", "closed"))
def close_watch(world: Any, slot: int, first: str) -> None:
    """Remove and close, or close and remove; asyncio accepts both (but not if a duplicate is alive)."""
    found = world.things.get(("watch", slot))
    if not found or not found.open:
        return
    if (
        first == "closed"
        and found.watched
        and found.kind == "socket"
        and not found.held
        and not world.holders
    ):
        found.close_near()
        if world.loop.remove_reader(found.near) is not True:
            world.problems.add("remove_reader answers wrong", "False for a closed socket")
        found.watched = False
        world.checks.append(lambda: unseen(found))
        return
    if found.watched:
        found.watched = False
        world.loop.remove_reader(found.near)
    found.close_near()


def unseen(found: Watch) -> list[tuple[str, str]]:
    """The other end of a closed socket sees the end."""
    if found.held or found.world.holders or found.far.fileno() < 0:
        return []
    with contextlib.suppress(ConnectionError):
        try:
            while found.far.recv(100):
                pass
        except BlockingIOError:
            return [("the peer of a watched socket sees no end", "")]
    return []


@op("watch", 2, SLOT)
def duplicate_watch(world: Any, slot: int) -> None:
    found = world.things.get(("watch", slot))
    if found and found.open:
        found.held = True
        fd = os.dup(found.fileno())
        world.closers.append(lambda: os.close(fd))


@op("watch", 1, (900, 901, 1023))
def watch_nothing(world: Any, number: int) -> None:
    """A number that is no open fd: an error, not silence."""
    for add, remove in (
        (world.loop.add_reader, world.loop.remove_reader),
        (world.loop.add_writer, world.loop.remove_writer),
    ):
        try:
            add(number, print)
        except (OSError, ValueError):
            continue
        remove(number)
        world.problems.add("a closed fd can be watched", str(number))


@op("watch", 2, SLOT)
def writer(world: Any, slot: int) -> None:
    """add_writer, until it is called once."""
    found = world.things.get(("watch", slot))
    if not found or not found.open or found.kind == "pipe" or found.writing:
        return
    found.writing = True
    calls: list[int] = []
    near = found.near

    def called() -> None:
        calls.append(1)
        found.writing = False
        world.loop.remove_writer(near)

    world.loop.add_writer(near, called)
    world.checks.append(
        lambda: [("a writer is not called", "")] if not calls and found.open and near.fileno() >= 0 else []
    )
    # The code that closes the socket removes both.
    close_near = found.close_near

    def closing() -> None:
        if near.fileno() >= 0 and not world.slammed:
            world.loop.remove_writer(near)
        close_near()

    found.close_near = closing  # type: ignore[method-assign]
