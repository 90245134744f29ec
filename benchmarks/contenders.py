"""Owns: who is measured, and how a loop of each is made. Knows nothing of what is measured.

A contender is a name. Those that are loops run every case; the bare servers are Rust without Python, and
only echo over TCP: they are the ceiling that a Python loop can approach and not pass.
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
ALL = (*LOOPS, *BARE)
PEERS = ("uvloop", "rloop", "asyncio")
"""What a user would run instead of proact."""


def package(contender: str) -> str:
    """The distribution a contender comes from."""
    return "proact" if contender.startswith(("proact-", "bare-")) else contender


def missing(contender: str) -> bool:
    """Is the package that carries this contender not installed here?"""
    return importlib.util.find_spec(package(contender)) is None


def new_loop(contender: str) -> asyncio.AbstractEventLoop:
    """A new event loop of this contender.

    Raises RuntimeError when proact took another engine than the one asked for: a fallback would be measured
    under a wrong name.
    """
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
