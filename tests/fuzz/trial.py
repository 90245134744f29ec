"""Runs a sequence on a fresh loop in this process; finds problems, also with fds and logs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings
from collections.abc import Callable
from typing import Any

from support import leaks

from .model import Deliberate
from .vocabulary import Sequence
from .world import World

# asyncio tries a listener again although it was closed, and wakes a sendfile that was cancelled.
LENIENT = (
    "Exception in callback BaseSelectorEventLoop._start_serving",
    "Exception in callback _SelectorSocketTransport._call_connection_lost",
)
EXPECTED = (
    "socket.accept() out of system resource",
    "Task was destroyed but it is pending",  # after `slam`
    # A factory has closed its server; asyncio reports that only in debug mode.
    "Error on transport creation for incoming connection",
)


def perform(
    sequence: Sequence, make_loop: Callable[[], Any], patience: float, lenient: bool
) -> list[tuple[str, str]]:
    """Carry out the sequence; return the problems. The caller notices hangs and crashes."""
    warnings.simplefilter("ignore")
    gc.collect()
    before = leaks.open_fds()
    world = World(make_loop, patience, lenient)
    loop = world.loop
    loop.set_exception_handler(lambda _, context, contexts=world.contexts: contexts.append(context))
    # A listener out of fds is tried again a second later: here, soon.
    later: Any = loop.call_later
    with contextlib.suppress(AttributeError):
        loop.call_later = lambda delay, *args, **more: later(0.02 if delay == 1 else delay, *args, **more)
    world.perform(sequence)
    problems = world.problems
    if not problems and not world.slammed and not world.abandoned:
        stats = getattr(loop, "stats", None)
        deadline = time.monotonic() + patience
        while stats and stats()["in_flight"] and time.monotonic() < deadline:
            loop.run_until_complete(asyncio.sleep(0.001))
        if stats and stats()["in_flight"]:
            problems.add("ops in flight", f"{stats()['in_flight']} at the end")
    if not loop.is_closed():
        with contextlib.suppress(Exception):
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    world.clear()
    for context in world.contexts:
        error = context.get("exception")
        expected = (*EXPECTED, *LENIENT) if lenient else EXPECTED
        if not isinstance(error, Deliberate) and not context["message"].startswith(expected) and not problems:
            problems.add("unhandled", f"{context['message']}: {error!r}")
    world.contexts.clear()
    error = context = None
    loop.__dict__.pop("call_later", None)
    loop = later = world = None  # type: ignore[assignment]
    gc.collect()
    if not problems:
        for line in leaks.difference(before, leaks.open_fds()):
            problems.add("fd leaked" if "leaked" in line else "an fd was closed that another owns", line)
    return list(problems)
