"""What a thread may do to a loop of another thread. A call works, or raises RuntimeError."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

from .field import Field


class Actor:
    """A thread's view of the field."""

    def __init__(self, field: Field, number: int, rng: random.Random, make_loop: Callable[[], Any]) -> None:
        self.field, self.number, self.rng, self.make_loop = field, number, rng, make_loop
        self.calls = 0

    def act(self) -> str:
        """One random action; returns its name."""
        name, action = self.rng.choice(TABLE)
        try:
            action(self)
        except RuntimeError:
            # Refused: the loop runs in another thread, or is closed.
            return f"{name} (refused)"
        return name

    def keep(self, handle: Any) -> None:
        self.field.handles[self.rng.randrange(Field.HANDLES)] = handle


def _schedule(actor: Actor, method: Callable[..., Any], *delay: float) -> None:
    field = actor.field
    entry = field.entry(actor.number)
    try:
        handle = method(*delay, field.ran, entry)
    except RuntimeError:
        entry.cancelled = True
        raise
    if actor.rng.random() < 0.2:
        entry.cancelled = True
        handle.cancel()
    actor.keep(handle)


def soon(actor: Actor) -> None:
    _schedule(actor, actor.field.loop.call_soon)


def soon_threadsafe(actor: Actor) -> None:
    _schedule(actor, actor.field.loop.call_soon_threadsafe)


def later(actor: Actor) -> None:
    _schedule(actor, actor.field.loop.call_later, actor.rng.random() * 0.003)


def in_order(actor: Actor) -> None:
    field = actor.field
    for _ in range(5):
        entry = field.entry(actor.number)
        try:
            field.loop.call_soon_threadsafe(field.in_order, entry, actor.number, actor.calls)
        except RuntimeError:
            entry.cancelled = True
            raise
        actor.calls += 1


def coroutine(actor: Actor) -> None:
    field = actor.field
    if field.closes_early:
        return  # asyncio warns of tasks that a closed loop has dropped
    entry = field.entry(actor.number)

    async def run() -> None:
        await asyncio.sleep(0)
        field.ran(entry)

    running = run()
    try:
        future = asyncio.run_coroutine_threadsafe(running, field.loop)
    except RuntimeError:
        running.close()
        entry.cancelled = True
        raise
    if actor.rng.random() < 0.3:
        entry.cancelled = True
        future.cancel()


def look_at_a_handle(actor: Actor) -> None:
    handle = actor.rng.choice(actor.field.handles)
    handle.get_context()
    handle.cancelled()
    repr(handle)
    weakref.ref(handle)


def _transport(actor: Actor) -> Any:
    chatters = actor.field.chatters
    if not chatters:
        return None
    chatter = actor.rng.choice(chatters)
    # The peer's may be on its way to another loop.
    return actor.rng.choice((chatter, chatter.peer)).transport


def look_at_a_transport(actor: Actor) -> None:
    transport = _transport(actor)
    if transport is not None:
        transport.is_closing()
        transport.is_reading()
        transport.get_extra_info("socket")
        transport.get_write_buffer_size()
        repr(transport)


def change_a_transport(actor: Actor) -> None:
    transport = _transport(actor)
    if transport is not None:
        transport.write(b"")
        transport.set_write_buffer_limits()


def end_a_transport(actor: Actor) -> None:
    transport = _transport(actor)
    if transport is not None and actor.rng.random() < 0.1:
        actor.rng.choice((transport.close, transport.abort))()


def statistics(actor: Actor) -> None:
    actor.field.loop.stats()


def stop_watching(actor: Actor) -> None:
    if actor.field.watched:
        actor.field.loop.remove_writer(actor.rng.choice(actor.field.watched))


def close_an_operation(actor: Actor) -> None:
    operations = list(actor.field.operations)
    if operations:
        actor.rng.choice(operations).close()


def collect(actor: Actor) -> None:
    if actor.rng.random() < 0.05:
        gc.collect()


def a_loop_of_its_own(actor: Actor) -> None:
    if actor.rng.random() < 0.9:
        return
    loop = actor.make_loop()
    try:
        entry = actor.field.entry(actor.number)
        entry.cancelled = True  # unless the call works

        async def call() -> None:
            await asyncio.sleep(0)
            actor.field.loop.call_soon_threadsafe(actor.field.ran, entry)
            entry.cancelled = False
            await asyncio.sleep(0)

        loop.run_until_complete(call())
    finally:
        loop.close()


TABLE = [
    (action.__name__, action)
    for action, weight in {
        soon: 3,
        soon_threadsafe: 3,
        in_order: 2,
        later: 2,
        coroutine: 1,
        look_at_a_handle: 4,
        look_at_a_transport: 2,
        change_a_transport: 1,
        end_a_transport: 1,
        statistics: 1,
        stop_watching: 1,
        close_an_operation: 1,
        collect: 1,
        a_loop_of_its_own: 1,
    }.items()
    for _ in range(weight)
]
