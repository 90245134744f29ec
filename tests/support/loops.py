"""Which event loops the behaviour tests run on, and how to make one.

Owns the two switches of the test-suite, and is the only module that asks which loop is under test:

    PROACT_TEST_LOOP=asyncio|uvloop      run the tests against that reference loop instead of proact. A test
    that passes on both shows drop-in behaviour; any other carries a `not_on` mark that says why.
    PROACT_TEST_ENGINES=io_uring,epoll   only these of proact's engines ("auto" is allowed: what a user gets).

It must not know any test.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

REFERENCE = os.environ.get("PROACT_TEST_LOOP", "")

if REFERENCE not in ("", "asyncio", "uvloop"):
    raise ValueError(f"PROACT_TEST_LOOP must be asyncio or uvloop, not {REFERENCE!r}")


def names() -> list[str]:
    """The loops to run every test on: proact's engines, or the one reference loop."""
    if REFERENCE:
        return [REFERENCE]
    chosen = os.environ.get("PROACT_TEST_ENGINES", "")
    if chosen:
        return chosen.split(",")
    import proact

    return list(proact.ENGINES)


def unavailable(name: str) -> str | None:
    """Why this machine can't offer the engine; None when it can."""
    if REFERENCE or name == "auto":
        return None
    import proact

    engine = proact.engine_report()["engines"][name]
    return None if engine["available"] else f"engine {name}: {engine['reason']}"


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    if REFERENCE == "asyncio":
        return asyncio.new_event_loop()
    if REFERENCE == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    import proact

    return proact.new_event_loop(engine=name)


def identify(loop: Any | None = None) -> str:
    """Class and engine of a loop, by default the running one: a program proves by this where it runs."""
    loop = loop or asyncio.get_running_loop()
    return f"{type(loop).__module__}.{type(loop).__name__} {getattr(loop, 'engine', '-')}"


def in_flight(loop: Any) -> int | None:
    """The number of ops that the loop has in flight; None for a reference loop, which does not count them."""
    return None if REFERENCE else loop.stats()["in_flight"]


async def turns(count: int = 3) -> None:
    """Let the loop make `count` turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def pending(loop: Any, task: asyncio.Future[Any], ops: int = 1) -> None:
    """Prove that `task` waits and its op is in flight: a cancel test on a finished op would prove nothing."""
    await turns()
    assert not task.done(), f"finished before it could be interrupted: {task!r}"
    count = in_flight(loop)
    assert count is None or count >= ops, f"{count} ops in flight, expected at least {ops}"


def settle(loop: Any) -> None:
    """Let the loop turn until cancelled ops have their terminal completions: ten turns, then 1 ms each for
    seconds.

    On a busy machine, the kernel's workers wait for a core, too.
    """
    for turn in range(3000):
        loop.run_until_complete(asyncio.sleep(0 if turn < 10 else 0.001))
        if not in_flight(loop):
            return
