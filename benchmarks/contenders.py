"""Owns: who is measured, and how a loop of each is made. Knows nothing of what is measured.

A contender is a name. Those that are loops run every case; the bare servers are Rust without Python, and
only echo over TCP: they are the ceiling that a Python loop can approach and not pass. `aiofastnet+LOOP` is
LOOP with the transports and the TLS of aiofastnet in place of its own, and runs the TLS cases alone.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util

BASELINE = "uvloop"
"""Every rate is also given as a ratio to this contender's, taken in the same round."""

ENGINES = ("io_uring", "epoll", "poll", "select")
LOOPS = (*(f"proact-{engine}" for engine in ENGINES), "asyncio", "uvloop", "rloop")
CORE = ("proact-io_uring", "proact-epoll", "asyncio", "uvloop", "rloop")
"""Who runs every case in every mode. poll and select add little where the case is not about the engine."""
BARE = ("bare-epoll", "bare-io_uring")
STACKED = ("aiofastnet+proact-io_uring", "aiofastnet+proact-epoll", "aiofastnet+uvloop")
ALL = (*LOOPS, *BARE, *STACKED)
PEERS = ("uvloop", "rloop", "asyncio", "aiofastnet+uvloop")
"""What a user would run instead of proact."""


def packages(contender: str) -> list[str]:
    """The distributions a contender comes from."""
    return ["proact" if part.startswith(("proact-", "bare-")) else part for part in contender.split("+")]


def missing(contender: str) -> bool:
    """Is a package that carries this contender not installed here?"""
    return any(importlib.util.find_spec(name) is None for name in packages(contender))


def new_loop(contender: str) -> asyncio.AbstractEventLoop:
    """A new event loop of this contender.

    Raises RuntimeError when proact took another engine than the one asked for: a fallback would be measured
    under a wrong name.
    """
    if contender in STACKED:
        import aiofastnet

        loop = new_loop(contender.removeprefix("aiofastnet+"))
        aiofastnet.patch_loop(loop)
        return loop
    if contender == "asyncio":
        return asyncio.new_event_loop()
    if not contender.startswith("proact-"):
        loop = importlib.import_module(contender).new_event_loop()
        assert isinstance(loop, asyncio.AbstractEventLoop)
        return loop
    import proact

    engine = contender.removeprefix("proact-")
    loop = proact.new_event_loop(engine=engine)
    if loop.engine != engine:
        raise RuntimeError(f"asked proact for the {engine} engine, got {loop.engine}")
    return loop
