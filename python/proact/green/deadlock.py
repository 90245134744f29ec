"""Owns: the question whether anything can still wake a loop that is about to sleep without an end.

The loop asks when nothing is ready, timed or in flight. What it cannot know of is other threads and signals,
so this claims a deadlock only if there are none that could call the loop.
"""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["Deadlock", "something_can_wake"]

# Threads of the kernel's and of proact's own, which work only for ops in flight.
OURS = ("iou-", "proact-pool")


class Deadlock(RuntimeError):  # noqa: N818 as `Timeout`, it is no mistake of the caller alone
    """All greenlets wait, and nothing can wake them. Its text tells who waits where, and for what."""


def something_can_wake(hub: Hub) -> bool:
    """Whether a signal handler or a thread may call the loop."""
    if hub.loop._signals._handlers:
        return True
    # SIGINT ends the program in the ordinary way.
    if any(callable(signal.getsignal(number)) for number in signal.valid_signals() - {signal.SIGINT}):
        return True
    known = {threading.get_native_id()}
    if hub.watchdog is not None:
        known.add(hub.watchdog.native_id or 0)
    executor = getattr(hub.loop, "_default_executor", None)
    if isinstance(executor, ThreadPoolExecutor):
        threads: set[threading.Thread] = executor._threads  # type: ignore[assignment]
        if executor._work_queue.empty() and executor._idle_semaphore._value >= len(threads):
            known |= {thread.native_id or 0 for thread in threads}
    for task in Path("/proc/self/task").iterdir():
        try:
            if int(task.name) not in known and not (task / "comm").read_text().startswith(OURS):
                return True
        except OSError:
            pass  # it has ended
    return False
