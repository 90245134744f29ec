"""Ops on when and where ops run (in callbacks, between runs, before close()), and on dropped references."""

from __future__ import annotations

import gc
from typing import Any

from .model import Deliberate
from .vocabulary import SCRIPT, SLOT, YES, op


@op("drop", 6, SLOT, YES)
async def drop(world: Any, slot: int, raising: bool) -> None:
    """Drop the program's reference to the transport; pause it, so that the loop has none either."""
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
    """Drop the last reference, with an exception set if `raising`: that exception must come through."""

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
    """The next call of this method of the protocol runs the script."""
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
    """Raise an exception; in a script, it is the callback's."""
    raise Deliberate("a script's")


@op("runs", 4)
def stop(world: Any) -> None:
    if world.loop.is_running():
        world.loop.stop()


@op("runs", 4)
async def leave(world: Any) -> None:
    """The following ops run while the loop does not, up to one that waits (World.inside returns)."""


@op("runs", 2)
def slam(world: Any) -> None:
    """Close the loop with everything open: the written bytes have left nevertheless."""
    if world.loop.is_running() or any(not task.done() for task in world.tasks):
        return  # a child that is being started has fds that no finaliser closes, also on asyncio
    world.between()
    for link in world.links.values():
        if link.kind != "sock":
            link.ending()
    world.slammed = True
    world.loop.close()
    world.between()
