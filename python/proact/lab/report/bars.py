"""A chart as the page gets it, and bars that can be compared though one is far longer than the rest."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from proact.lab.spread import Spread
from proact.lab.table import number

if TYPE_CHECKING:
    from collections.abc import Sequence

ROW: Final = 24  # px, one model in a chart of bars
AXES: Final = 64  # px, the axis below the bars and its title

#: The axis is so many times as long as the longest bar at most, if intervals are longer.
WIDEST: Final = 1.5

#: A bar of more than so many times the median is cut off.
FLATTENS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart. ``height`` is in CSS pixels, without the legend."""

    title: str
    how: str  # one line on how to read it
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int
    cut: tuple[tuple[str, str], ...] = ()  # the bars that are cut off at the end of the axis: name, value

    def as_json(self) -> dict[str, Any]:
        """The figure that the page hands to plotly."""
        return {"data": self.data, "layout": self.layout, "height": self.height, "cut": self.cut}


def bars_to_scale(
    title: str,
    how: str,
    axis: str,
    bars: Sequence[tuple[str, Spread]],
    colours: Sequence[str],
    patterns: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> Figure:
    """A bar for each model, with its interval. A bar far longer than the others ends in a break, with its
    value beside it, so that it does not flatten them.
    """
    spreads = [spread for _, spread in bars]
    names = [name for name, _ in bars]
    end = scale_end([spread.median for spread in spreads])
    long = [spread.median > end for spread in spreads]
    highest = max((spread.high for spread, cut in zip(spreads, long, strict=True) if not cut), default=end)
    edge = max(end, min(highest, WIDEST * end))  # an interval that is wider runs off the edge
    drawn = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [edge if cut else spread.median for spread, cut in zip(spreads, long, strict=True)],
        "error_x": error(
            [Spread(edge, edge, edge) if cut else spread for spread, cut in zip(spreads, long, strict=True)]
        )
        | {"thickness": 1.5, "width": 3},
        "marker": {
            "color": list(colours),
            "pattern": {"shape": list(patterns) or [""] * len(names)},
        },
        "customdata": [
            [kind, spread.low, spread.high, spread.median]
            for kind, spread in zip(list(kinds) or names, spreads, strict=True)
        ],
        "hovertemplate": "%{y} (%{customdata[0]})<br>%{customdata[3]:,.4~g}, from %{customdata[1]:,.4~g} to "
        "%{customdata[2]:,.4~g}<extra></extra>",
    }
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": axis}, "range": [0, 1.03 * edge], "tickformat": "~s"},
        "yaxis": models_axis(names),
        "showlegend": False,
    }
    if any(long):
        how += " A bar with a gap is cut off, and its value stands on it: the axis is that of the others."
    off = tuple((name, short(spread.median)) for (name, spread), cut in zip(bars, long, strict=True) if cut)
    return Figure(title, how, [drawn], layout, ROW * len(bars) + AXES, off)


def short(value: float) -> str:
    """A value beside a bar that was cut off."""
    return number(value, 6)


def scale_end(values: Sequence[float]) -> float:
    """Where the axis of bars ends: at the longest, unless it is so long that it would flatten the others.

    It is the longest bar that is at most ``FLATTENS`` times the median.
    """
    middle = median(values)
    return max([value for value in values if value <= FLATTENS * middle] or [max(values)])


def models_axis(names: Sequence[str]) -> dict[str, Any]:
    """The axis with the models, the first on top."""
    return {
        "title": {"text": "model"},
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(names),
        "autorange": "reversed",
        "dtick": 1,
        "showgrid": False,
    }


def error(spreads: Sequence[Spread]) -> dict[str, Any]:
    """Intervals as plotly's error bars."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [spread.high - spread.median for spread in spreads],
        "arrayminus": [spread.median - spread.low for spread in spreads],
    }
