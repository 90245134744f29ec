"""Owns: the charts of the documentation's site, HTML and SVG, drawn from a results file.

Each chart shows one kind of cases as ratios to the baseline within one round: a bar from 1 to the median, on
a logarithmic axis, and a line from the least to the greatest ratio. The positions in an SVG are per cent and
the text around it is HTML, so a chart fits a phone without smaller letters, and follows the page's light or
dark colours. docs/site/site.css has the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks import stats, table
from benchmarks.contenders import BASELINE, SPINNING
from benchmarks.report import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN = ("proact-io_uring", "proact-epoll", "rloop", "asyncio")
"""The loops that get a bar. The tables of the page have the other contenders too."""

TICKS = (0.1, 0.2, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 5.0, 10.0)
"""The ratios that may be marked on an axis: round numbers, and their inverses."""


@dataclass(frozen=True)
class Figure:
    """A figure that is charted, and what a ratio above 1 means."""

    key: str
    caption: str
    sign: int


FIGURES = (
    Figure("rate", f"rate, × {BASELINE}: more is better", 1),
    Figure("cpu_us", f"CPU time per operation, × {BASELINE}: less is better", -1),
    Figure("memory", f"memory per connection, × {BASELINE}: less is better", -1),
)


LATENCY = Figure("p50_us", f"median latency, × {BASELINE}: less is better", -1)
"""Charted for one connection only: with many, each message waits for the others."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, in per cent of its width."""

    low: float
    high: float

    def at(self, ratio: float) -> float:
        """Where a ratio is; what lies beyond an end is at the end."""
        part = math.log(ratio / self.low) / math.log(self.high / self.low)
        return 100 * min(1.0, max(0.0, part))

    def ticks(self) -> list[float]:
        """The marked ratios, 1 among them, each far enough from the next for its label."""
        chosen = [1.0]
        for tick in sorted(TICKS, key=lambda tick: abs(math.log(tick))):
            inside = self.low <= tick <= self.high
            if inside and all(abs(self.at(tick) - self.at(other)) > 13 for other in chosen):
                chosen.append(tick)
        return sorted(chosen)


def axis(spreads: list[stats.Spread]) -> Axis:
    """An axis for all medians and most of the spreads: an outlier of one round does not squeeze the rest."""
    ends = sorted(abs(math.log(end)) for each in spreads for end in (each.low, each.high))
    most = ends[int(0.95 * (len(ends) - 1))]
    farthest = max([most, *(abs(math.log(each.median)) for each in spreads)], default=0.0)
    reach = math.exp(max(farthest, math.log(1.25)) * 1.05)
    lows = [min(each.median, max(each.low, 1 / reach)) for each in spreads]
    highs = [max(each.median, min(each.high, reach)) for each in spreads]
    return Axis(min(0.8, *lows) / 1.03, max(1.25, *highs) * 1.03)


def bar(spread: stats.Spread, scale: Axis, sign: int) -> str:
    """One bar: an SVG as wide as the page lets it be."""
    one, median = scale.at(1.0), scale.at(spread.median)
    low, high = scale.at(spread.low), scale.at(spread.high)
    kind = "win" if spread.median**sign >= 1 else "loss"
    left, width = min(one, median), max(abs(median - one), 0.3)
    grid = "".join(
        f'<line class="{"one" if tick == 1 else "grid"}" x1="{scale.at(tick):.2f}%" '
        f'x2="{scale.at(tick):.2f}%" y1="0" y2="18"/>'
        for tick in scale.ticks()
    )
    return (
        f'<svg class="bar" width="100%" height="18" role="img" aria-label="{table.times(spread)}">{grid}'
        f'<rect class="{kind}" x="{left:.2f}%" y="3" width="{width:.2f}%" height="12"/>'
        f'<line class="spread" x1="{low:.2f}%" x2="{high:.2f}%" y1="9" y2="9"/></svg>'
    )


def labels(scale: Axis) -> str:
    """The axis with its numbers."""
    texts = "".join(
        f'<text x="{scale.at(tick):.2f}%" y="11" text-anchor="middle">{tick:g}</text>'
        for tick in scale.ticks()
    )
    return f'<span></span><svg class="axis" width="100%" height="14">{texts}</svg><span></span>'


def chart(
    cases: list[dict[str, Any]], title: str, figure: Figure, names: tuple[str, ...] = SHOWN
) -> Iterator[str]:
    """One figure of several cases; nothing if no case has it."""
    found: list[tuple[str, list[tuple[str, stats.Spread]]]] = []
    for case in cases:
        ratios = [(name, stats.ratio(case["runs"], name, BASELINE, figure.key)) for name in names]
        present = [(name, ratio) for name, ratio in ratios if ratio]
        if present:
            found.append((case["title"], present))
    if not found:
        return
    scale = axis([ratio for _, rows in found for _, ratio in rows])
    yield f'<figure class="chart"><figcaption>{escape(title)}: {escape(figure.caption)}</figcaption>'
    yield f'<div class="bars">{labels(scale)}'
    for case_title, rows in found:
        yield f'<span class="case">{escape(case_title)}</span>'
        for name, ratio in rows:
            yield (
                f'<span class="name">{escape(name)}</span>{bar(ratio, scale, figure.sign)}'
                f'<span class="value">{ratio.median:.2f}'
                f'<span class="range"> [{ratio.low:.2f}–{ratio.high:.2f}]</span></span>'
            )
    yield f"{labels(scale)}</div></figure>"


LEGEND = f"""\
A bar runs from 1, which is {BASELINE}, to the median of the ratios within one round; the line over it runs
from the least to the greatest ratio. The axis is logarithmic, so half as much is as long as twice as much.
Green is better than {BASELINE}, orange is worse. A line that leaves the chart goes on beyond its edge.
"""


def section(results: dict[str, Any]) -> str:
    """The section with all charts, as Markdown with HTML in it."""
    lines = ["## At a glance", "", LEGEND]
    for kind, title in KINDS.items():
        cases = [case for case in results["cases"] if case["kind"] == kind]
        for figure in FIGURES:
            if kind == "idle" and figure.key != "memory":
                continue
            drawn = list(chart(cases, title, figure))
            if drawn:
                lines += [*drawn, ""]
        if kind == "echo":
            alone = [case for case in cases if case["connections"] == 1]
            lines += [*chart(alone, "One connection", LATENCY, (*SPINNING, *SHOWN)), ""]
    return "\n".join(lines)
