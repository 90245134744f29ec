"""Ops on when and where ops run: in callbacks, between two runs, before close(); and references that go."""

from __future__ import annotations

import gc
from typing import Any

from .model import Deliberate
from .vocabulary import SCRIPT, SLOT, YES, op


@op("drop", 6, SLOT, YES)
async def drop(world: Any, slot: int, raising: bool) -> None:
    """Nobody has the transport any more, which is paused, so that the loop has not either."""
    link = world.link(slot, "protocol")
    if not link or not link.alive or link.busy or link.engine:
        return
    link.transport.pause_reading()
    await world.turns(2)
    if not link.alive:
        return
    link.dropped = True
    link.out.cut()
    link.into.abandon()
    box = [link.transport]
    link.transport = link.protocol = None
    lose(box, raising)
    gc.collect()
    await world.turns(2)


def lose(box: list[Any], raising: bool) -> None:
    """The last reference goes, with an exception on its way if `raising`: that one must come through."""

    def raises() -> Any:
        raise Deliberate("mine")

    if not raising:
        box.clear()
        return
    try:
        id(box.pop(), raises())  # type: ignore[call-arg]
    except Deliberate as error:
        if error.args != ("mine",):
            raise


@op("callback", 10, SLOT, ("data", "lost"), SCRIPT)
def on(world: Any, slot: int, moment: str, script: list[Any]) -> None:
    """The next such callback of the protocol does this."""
    if link := world.link(slot, "protocol"):
        link.scripts[moment] = script


@op("callback", 5, ("soon", "threadsafe", "timer"), SCRIPT)
def call(world: Any, how: str, script: list[Any]) -> None:
    if how == "soon":
        world.loop.call_soon(world.script, script)
    elif how == "threadsafe":
        world.loop.call_soon_threadsafe(world.script, script)
    else:
        world.loop.call_later(0.001, world.script, script)


@op("callback", 2)
def fail(world: Any) -> None:
    """An exception, of a callback where it is in a script."""
    raise Deliberate("a script's")


@op("runs", 4)
def stop(world: Any) -> None:
    if world.loop.is_running():
        world.loop.stop()


@op("runs", 4)
async def leave(world: Any) -> None:
    """The ops after this run while the loop does not, until one that waits (World.inside returns)."""


@op("runs", 2)
def slam(world: Any) -> None:
    """The loop is closed with everything open: what was written has left all the same."""
    if world.loop.is_running() or any(not task.done() for task in world.tasks):
        return  # a child that is being started has fds that no finaliser closes, on asyncio too
    world.between()
    for link in world.links.values():
        if link.kind != "sock":
            link.ending()
    world.slammed = True
    world.loop.close()
    world.between()
