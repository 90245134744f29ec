"""The cpu workload: a handler that computes for so many microseconds in Python, and so holds the interpreter.

The work is a loop of a fixed number of rounds, the same for every model, that takes the wanted time on an
undisturbed CPU. So a model that shares its core takes longer, as it does in earnest.
"""

from __future__ import annotations

import time
from itertools import repeat
from typing import TYPE_CHECKING, Final

from proact.lab.workloads.lines import Lines, exchange
from proact.lab.workloads.web import counted

if TYPE_CHECKING:
    from proact.lab.workloads import Sessions

__all__ = ("exchange", "sessions")

#: The rounds of one trial (about a millisecond), and the trials: the quickest is the undisturbed one.
_ROUNDS: Final = 100_000
_TRIALS: Final = 15


def compute(rounds: int) -> None:
    """So many rounds of nothing."""
    for _ in repeat(None, rounds):
        pass


def rounds_for(seconds: float) -> int:
    """How many rounds take so long on this CPU."""
    quickest = float("inf")
    for _ in range(_TRIALS):
        begun = time.thread_time()
        compute(_ROUNDS)
        quickest = min(quickest, time.thread_time() - begun)
    return max(1, round(seconds / quickest * _ROUNDS))


class Computing(Lines):
    """Computes, then answers."""

    __slots__ = ("_rounds",)

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._rounds = rounds

    def begin(self, size: int) -> bytes:
        compute(self._rounds)
        return counted(size)


def sessions(seconds: float) -> Sessions:
    """Sessions that compute for so long for each request."""
    rounds = rounds_for(seconds)
    return lambda: Computing(rounds)
