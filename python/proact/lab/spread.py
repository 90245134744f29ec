"""A median and the interval that the repeats give it."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The probability that an interval holds the true median, if there are enough repeats.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its confidence interval; with fewer than six repeats the interval is their range.

    The interval lies between two of the values, as many from either end as ``CONFIDENCE`` allows (the sign
    test inverted: each value is above the true median with a chance of a half), so nothing is assumed
    about how they are distributed. The range of five is a 94 % interval, of three 75 %.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        ordered, count, outside, left_out = sorted(values), len(values), 0.0, 0
        while left_out < (count - 1) // 2:
            # The chance that the true median lies beyond the next value, at either end.
            outside += 2 * comb(count, left_out) / 2**count
            if outside + 2 * comb(count, left_out + 1) / 2**count > 1 - CONFIDENCE:
                break
            left_out += 1
        return cls(median(values), ordered[left_out], ordered[-1 - left_out])

    def __str__(self) -> str:
        """``1.23 (1.10 to 1.40)``."""
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def half_range(self) -> float:
        """Half the interval relative to the median: 0.03 reads "± 3 %"."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0
