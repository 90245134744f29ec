"""Delta debugging: finds the smallest sequence that still fails in the same way. It knows no loop: `fails`
decides.

It leaves out chunks first, halves before single ops (after Zeller and Hildebrandt's ddmin), then makes ops
simpler, one argument at a time. It repeats both until nothing helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .vocabulary import Sequence, simpler

Fails = Callable[[Sequence], bool]


def shrink(sequence: Sequence, fails: Fails, seconds: float) -> Sequence:
    """`fails` is true for `sequence` and for the result. It stops early when the time is over."""
    until = time.monotonic() + seconds
    before: Sequence | None = None
    while before != sequence and time.monotonic() < until:
        before = sequence
        sequence = _simplify(_leave_out(sequence, fails, until), fails, until)
    return sequence


def _leave_out(sequence: Sequence, fails: Fails, until: float) -> Sequence:
    size = max(1, len(sequence) // 2)
    while True:
        at = len(sequence) - size
        while at > -size and time.monotonic() < until:
            shorter = sequence[: max(0, at)] + sequence[at + size :]
            if len(shorter) < len(sequence) and fails(shorter):
                sequence = shorter
            at -= size
        if size == 1 or time.monotonic() > until:
            return sequence
        size //= 2


def _simplify(sequence: Sequence, fails: Fails, until: float) -> Sequence:
    for index in range(len(sequence)):
        again = True
        while again and time.monotonic() < until:
            again = False
            for value in simpler(sequence[index]):
                other = [*sequence[:index], value, *sequence[index + 1 :]]
                if fails(other):
                    sequence, again = other, True
                    break
    return sequence
