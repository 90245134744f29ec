"""Compares two sets of measurements: the ratio or the difference of their middles, with its interval.

The estimate is the median of all ratios (differences) of one value of each set (Hodges and Lehmann), and
the interval lies between two of them, as many from either end as ``CONFIDENCE`` allows (the test of Mann and
Whitney turned round). Nothing is assumed about how the values are distributed. With three values of each the
interval is their whole range, and holds the true value in nine of ten cases.
"""

from __future__ import annotations

from functools import cache
from math import comb
from statistics import median
from typing import TYPE_CHECKING

from proact.lab.spread import CONFIDENCE, Spread

if TYPE_CHECKING:
    from collections.abc import Sequence


def ratio(upper: Sequence[float], lower: Sequence[float]) -> Spread:
    """How many times as large the values of ``upper`` are. All of ``lower`` are above 0."""
    return _middle([over / under for over in upper for under in lower], len(upper), len(lower))


def difference(upper: Sequence[float], lower: Sequence[float]) -> Spread:
    """How much larger the values of ``upper`` are."""
    return _middle([over - under for over in upper for under in lower], len(upper), len(lower))


def _middle(pairs: list[float], first: int, second: int) -> Spread:
    pairs.sort()
    left_out = 0
    outside = _arrangements(first, second, 0)
    while left_out < (len(pairs) - 1) // 2:
        outside += _arrangements(first, second, left_out + 1)
        if 2 * outside / comb(first + second, first) > 1 - CONFIDENCE:
            break
        left_out += 1
    return Spread(median(pairs), pairs[left_out], pairs[-1 - left_out])


@cache
def _arrangements(first: int, second: int, pairs: int) -> int:
    """In how many orders of two sets, in exactly ``pairs`` pairs, the first set's value is the larger."""
    if pairs < 0:
        return 0
    if not first or not second:
        return int(pairs == 0)
    return _arrangements(first - 1, second, pairs - second) + _arrangements(first, second - 1, pairs)
