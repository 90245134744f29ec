"""Owns: the thread that notices a greenlet which keeps the loop from everything else."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from .hub import hub_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hub import Hub

__all__ = ["Watchdog", "watch"]

logger = logging.getLogger("proact.green")


class Watchdog:
    """Looks twice in `limit` seconds whether the loop has switched."""

    def __init__(self, hub: Hub, limit: float, tell: Callable[[Any, str], object]) -> None:
        self._hub = hub
        self._limit = limit
        self._tell = tell
        self._stop = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="proact.green watchdog", daemon=True)
        self._thread.start()

    @property
    def native_id(self) -> int | None:
        """The number by which the kernel knows its thread."""
        return self._thread.native_id

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        seen, since, told = -1, 0.0, False
        while not self._stop.wait(self._limit / 2):
            running, now = self._hub._running, time.monotonic()
            switches = self._hub._switches
            if running is None or switches != seen:
                seen, since, told = switches, now, False
            elif now - since >= self._limit and not told:
                told = True
                frame = sys._current_frames().get(self._watched)
                if frame is not None and self._hub._switches == seen:
                    self._report(running, frame)
            del running

    def _report(self, running: Any, frame: Any) -> None:
        from .stacks import stack_of

        try:
            self._tell(getattr(running, "job", running), stack_of(frame))
        except Exception:
            logger.exception("The watchdog's report has failed")


def _warn(limit: float) -> Callable[[Any, str], None]:
    def tell(greenlet: Any, stack: str) -> None:
        logger.warning("%r has not yielded for %d ms:\n%s", greenlet, limit * 1000, stack)

    return tell


def watch(limit: float = 0.05, tell: Callable[[Any, str], object] | None = None) -> Watchdog:
    """Watch the greenlets of this loop, until it closes or `stop` is called.

    If one has not yielded for `limit` seconds, `tell(greenlet, stack)` is called in another thread, once for
    each time; by default that logs a warning.
    """
    hub = hub_here()
    if hub.watchdog is not None:
        hub.watchdog.stop()
    hub.watchdog = Watchdog(hub, limit, tell or _warn(limit))
    return hub.watchdog
