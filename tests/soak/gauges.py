"""The figures that must return to where they began. It knows neither the activities nor which loop runs."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import os
import statistics
import sys
import threading
from typing import Any

from support import leaks

# The growth that is allowed before a steady rise counts as a leak: caches fill up
# (specialised code, interned strings, malloc's own).
OBJECTS = 250
BLOCKS = 3000
BYTES = 6 << 20
# The share of the pairs of samples that must rise, so that growth counts as a trend.
STEADY = 0.75

_LIBC = ctypes.CDLL(None)


def counts(loop: Any) -> dict[str, int]:
    """The figures that have to be exactly what they were, each time that the loop is quiet.

    The handles are those that will be called: a cancelled timer stays in the heap until its time or the next
    sweep, and handles that have run are kept to be used again.
    """
    found = {
        "fds": len(leaks.open_fds()),
        "tasks": len(asyncio.all_tasks(loop)),
        "children": len(_children()),
    }
    if hasattr(loop, "stats"):
        stats = loop.stats()
        found |= {"in flight": stats["in_flight"], "slots": stats["slots"], "readers": stats["readers"]}
        found["handles"] = stats["handles"] - stats["cancelled"]
    instances = leaks.instances()
    return found | {kind: count for kind, count in instances.items() if not kind.endswith("Handle")}


def _children() -> list[str]:
    with open(f"/proc/self/task/{threading.get_native_id()}/children") as file:
        return file.read().split()


def resident() -> int:
    """Bytes of memory that the process has in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def memory() -> dict[str, int]:
    """The memory that should not rise, measured after a collection and malloc_trim."""
    gc.collect()
    gc.collect()
    found = {"objects": len(gc.get_objects()), "blocks": sys.getallocatedblocks()}
    _LIBC.malloc_trim(0)
    return found | {"bytes": resident()}


def growth(samples: list[int]) -> tuple[float, float]:
    """How much the samples rise from the first to the last, and how steadily (0.5: not at all).

    The rise is Theil's: the median of the slopes between all pairs of samples, unmoved by a few outliers.
    """
    pairs = list(itertools.combinations(enumerate(samples), 2))
    slopes = [(later - sooner) / (j - i) for (i, sooner), (j, later) in pairs]
    rising = sum(1 if slope > 0 else 0.5 if slope == 0 else 0 for slope in slopes) / len(slopes)
    return statistics.median(slopes) * (len(samples) - 1), rising


def trends(samples: list[dict[str, int]]) -> list[str]:
    """The kinds of memory that have grown; fewer than four samples show nothing."""
    if len(samples) < 4:
        return []
    grown = []
    for kind, limit in {"objects": OBJECTS, "blocks": BLOCKS, "bytes": BYTES}.items():
        values = [sample[kind] for sample in samples]
        rise, steady = growth(values)
        if rise > limit and steady >= STEADY:
            grown.append(f"memory: {kind} grew by {rise:.0f}: {values}")
    return grown
