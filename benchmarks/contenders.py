"""Owns: the contenders, and how to make a loop of each. It does not know the cases.

A contender is a name. A contender that is a loop runs every case. The bare servers are Rust without Python,
and only echo over TCP: they are the ceiling, which a Python loop can approach but not pass. `aiofastnet+LOOP`
is LOOP with the transports and the TLS of aiofastnet in place of its own, and runs only the TLS cases.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util

BASELINE = "uvloop"
"""Every rate is also given as a ratio to the rate of this contender in the same round."""

ENGINES = ("io_uring", "epoll", "poll", "select")
LOOPS = (*(f"proact-{engine}" for engine in ENGINES), "asyncio", "uvloop", "rloop", "zuvloop", "rsloop")
CORE = ("proact-io_uring", "proact-epoll", "asyncio", "uvloop", "rloop", "zuvloop", "rsloop")
"""The contenders of every case in every mode. poll and select add little if a case is not about the engine.
"""
SPINNING = ("proact-io_uring+spin", "proact-epoll+spin")
"""proact with `spin=SPIN`: it asks the engine for so many seconds before it sleeps."""
SPIN = 50e-6
CHOSEN = "proact"
"""proact with the engine that it chooses here: what a program gets that names none."""
BARE = ("bare-epoll", "bare-io_uring")
STACKED = ("aiofastnet+proact-io_uring", "aiofastnet+proact-epoll", "aiofastnet+uvloop")
ALL = (*LOOPS, *BARE, *STACKED, *SPINNING, CHOSEN)
PEERS = ("uvloop", "rloop", "zuvloop", "rsloop", "asyncio", "aiofastnet+uvloop")
"""The loops that a user would run instead of proact."""


def packages(contender: str) -> list[str]:
    """The distributions that a contender comes from."""
    parts = contender.removesuffix("+spin").split("+")
    return ["proact" if part.startswith(("proact", "bare-")) else part for part in parts]


def missing(contender: str) -> bool:
    """Whether a package of this contender is missing here."""
    return any(importlib.util.find_spec(name) is None for name in packages(contender))


def new_loop(contender: str) -> asyncio.AbstractEventLoop:
    """A new event loop of this contender.

    Raises RuntimeError if proact took another engine than the requested one: a fallback would be measured
    under a wrong name.
    """
    if contender in STACKED:
        import aiofastnet

        loop = new_loop(contender.removeprefix("aiofastnet+"))
        aiofastnet.patch_loop(loop)
        return loop
    if contender == "asyncio":
        return asyncio.new_event_loop()
    if not contender.startswith("proact"):
        # Not each of them is an AbstractEventLoop to `isinstance` (rsloop's is not).
        made: asyncio.AbstractEventLoop = importlib.import_module(contender).new_event_loop()
        return made
    import proact

    if contender == CHOSEN:
        return proact.new_event_loop()
    engine = contender.removeprefix("proact-").removesuffix("+spin")
    # Without the keyword for the others: an older build, which is compared, does not know it.
    loop = proact.new_event_loop(engine=engine, **({"spin": SPIN} if contender in SPINNING else {}))
    if loop.engine != engine:
        raise RuntimeError(f"asked proact for the {engine} engine, got {loop.engine}")
    return loop
