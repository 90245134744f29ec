"""Owns: lines of greenlets that wait for each other, in their order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .. import _core
from .hub import hub_here

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Line"]


class Line:
    """Greenlets that wait; the first one is woken first."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: deque[_core.Parking] = deque()

    def __len__(self) -> int:
        return len(self._waits)

    def wake(self) -> bool:
        """Wake the first one; return whether there was one."""
        try:
            first = self._waits.popleft()
        except IndexError:
            return False
        first.wake()
        return True

    def wait(
        self,
        timeout: float | None,
        pass_on: Callable[[], object],
        in_front: bool = False,
        unless: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait for `wake`, at most `timeout` seconds; return whether it came.

        If the greenlet is interrupted although it was woken already, `pass_on` is called, so that what it was
        woken for is not lost. `unless` says, once the greenlet is in the line, whether another thread has
        brought meanwhile what it waits for; it then does not wait.
        """
        parking = _core.Parking()
        if in_front:
            self._waits.appendleft(parking)
        else:
            self._waits.append(parking)
        if unless is not None and unless():
            self._leave(parking)
            parking.stop()
            return True
        timer = None if timeout is None else hub_here().loop.call_later(timeout, parking.fire)
        try:
            parking.wait()
        except BaseException:
            if not self._leave(parking):
                pass_on()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return not self._leave(parking)

    def _leave(self, parking: _core.Parking) -> bool:
        """Whether it was still in the line."""
        try:
            self._waits.remove(parking)
        except ValueError:
            return False
        return True
