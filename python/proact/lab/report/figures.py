"""The charts of the measurements: each has a title, a line on how to read it, and plotly's JSON.

The page sets the colours of text and grid, because it knows whether it is dark. All numbers come from
``summary.py``; a chart without data is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final, cast

from proact.lab.report.looks import PARTS, Look, part_bars
from proact.lab.summary import Spread, latencies
from proact.lab.table import amount, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proact.lab.results import Document
    from proact.lab.summary import Block, Load, Row

_ROW: Final = 24  # px, one model in a chart of bars
_AXES: Final = 64  # px, the axis below the bars and its title
_CURVES: Final = 340  # px, a chart of curves, without its legend

#: A bar of more than so many times the median is cut off.
_FLATTENS: Final = 4.0

#: In a chart of split time, waiting is cut off at so many times the work of the busiest model.
_WAITING_SHOWN: Final = 3.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart. ``height`` is in CSS pixels, without the legend."""

    title: str
    how: str  # one line on how to read it
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int

    def as_json(self) -> dict[str, Any]:
        """The figure that the page hands to plotly."""
        return {"data": self.data, "layout": self.layout, "height": self.height}


def of_block(document: Document, block: Block, looks: dict[str, Look]) -> list[Figure]:
    """The charts of one load."""
    found: list[Figure] = []
    if not block.rows:
        return found
    if block.load.rate is None:
        found.append(rate_bars(block.rows, looks))
    found.append(cpu_bars(block.rows, looks))
    if any(row.split and row.split["messages"] for row in block.rows):
        found.append(split_bars(block.rows))
    if curves := latency_curves(document, block, looks):
        found.append(curves)
    return found


def rate_bars(rows: Sequence[Row], looks: dict[str, Look]) -> Figure:
    """Messages per second of each model."""
    how = "Longer is better. The thin line is the interval of the repeats: where two overlap, they are level."
    return _bars("Messages per second", how, "messages per second", rows, looks, lambda row: row.rate)


def cpu_bars(rows: Sequence[Row], looks: dict[str, Look]) -> Figure:
    """CPU time of the server for each message."""
    how = "Shorter is better: less work of the server for the same message, in Python and in the kernel."
    return _bars("CPU time per message", how, "µs of CPU per message", rows, looks, lambda row: row.cpu_us)


def _bars(
    title: str,
    how: str,
    axis: str,
    rows: Sequence[Row],
    looks: dict[str, Look],
    value: Callable[[Row], Spread],
) -> Figure:
    looked = [looks[row.model] for row in rows]
    return bars_to_scale(
        title,
        how,
        axis,
        [(row.model, value(row)) for row in rows],
        [look.colour for look in looked],
        [look.pattern for look in looked],
        [row.kind for row in rows],
    )


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
    within = [min(spread.high, 1.1 * end) for spread in spreads]
    drawn = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [end if cut else spread.median for spread, cut in zip(spreads, long, strict=True)],
        "error_x": _error(
            [
                Spread(end, end, end) if cut else Spread(spread.median, spread.low, high)
                for spread, cut, high in zip(spreads, long, within, strict=True)
            ]
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
        "xaxis": {"title": {"text": axis}, "rangemode": "tozero", "tickformat": "~s"},
        "yaxis": _axis_of(names),
        "showlegend": False,
    }
    if any(long):
        how += " A bar with a gap is cut off, and its value stands on it: the axis is that of the others."
        layout["xaxis"]["range"] = [0, 1.03 * end]
        cut = [(name, spread) for (name, spread), off in zip(bars, long, strict=True) if off]
        layout["bars_cut"] = [{"y": name, "x": end, "text": short(spread.median)} for name, spread in cut]
    return Figure(title, how, [drawn], layout, _ROW * len(bars) + _AXES)


def short(value: float) -> str:
    """A value beside a bar that was cut off."""
    return number(value, 6)


def scale_end(values: Sequence[float]) -> float:
    """Where the axis of bars ends: at the longest, unless it is so long that it would flatten the others.

    It is the longest bar that is at most ``_FLATTENS`` times the median.
    """
    middle = median(values)
    return max([value for value in values if value <= _FLATTENS * middle] or [max(values)])


def _names(rows: Sequence[Row]) -> dict[str, Any]:
    """The axis with the models, the first on top."""
    return _axis_of([row.model for row in rows])


def _axis_of(names: Sequence[str]) -> dict[str, Any]:
    return {
        "title": {"text": "model"},
        "type": "category",
        "categoryorder": "array",
        "categoryarray": list(names),
        "autorange": "reversed",
        "dtick": 1,
        "showgrid": False,
    }


def _error(spreads: Sequence[Spread]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [spread.high - spread.median for spread in spreads],
        "arrayminus": [spread.median - spread.low for spread in spreads],
    }


def split_bars(rows: Sequence[Row]) -> Figure:
    """Where the server's threads were, for each message, as stacked bars."""
    found = [(row, row.split) for row in rows if row.split and row.split["messages"]]
    names = [row.model for row, _ in found]
    micros = {
        part: [cast("float", split.get(part, 0.0)) * 1e6 / split["messages"] for _, split in found]
        for part in PARTS
    }
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": PARTS[part][0],
            "y": names,
            "x": micros[part],
            "marker": part_bars(part),
            "width": 0.56,
            "offset": -0.42,
            "hovertemplate": f"%{{y}}: %{{x:,.3~g}} µs {PARTS[part][0]}<extra></extra>",
        }
        for part in PARTS
    ]
    # plotly does not stack a bar that has a base: these threads run beside the others.
    data[-1] |= {"base": [0.0] * len(names), "width": 0.2, "offset": 0.18}
    busy = [
        sum(micros[part][at] for part in PARTS if part not in ("waiting", "others"))
        for at in range(len(names))
    ]
    whole = max(work + waiting for work, waiting in zip(busy, micros["waiting"], strict=True))
    shown = max(max(busy) * _WAITING_SHOWN, *micros["others"])
    how = (
        "Each bar is the time that the server's threads lived per message, and what they did meanwhile; one "
        "pass, so without an interval."
    )
    if whole > shown:
        how += " The longest waits run off the right edge: tap twice to see all."
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "µs per message"}, "range": [0, min(whole, shown) * 1.03]},
        "yaxis": _names([row for row, _ in found]),
    }
    return Figure("Where the time goes", how, data, layout, (_ROW + 4) * len(names) + _AXES)


def latency_curves(document: Document, block: Block, looks: dict[str, Look]) -> Figure | None:
    """The cumulative distribution of latency; None without histograms."""
    data: list[dict[str, Any]] = []
    for row in block.rows:
        steps = latencies(document, block.load, row.model)
        if not steps:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": row.model,
                "x": [micros for micros, _ in steps],
                "y": [share for _, share in steps],
                "line": looks[row.model].line() | {"shape": "hv"},
                "hovertemplate": f"{row.model}: %{{y:.4~p}} within %{{x:,.4~g}} µs<extra></extra>",
            }
        )
    if not data:
        return None
    how = "How many of the answers came within so many microseconds: left is faster, steep is steadier."
    micros = [each for trace in data for each in trace["x"]]
    layout = {
        "xaxis": _log("latency, µs (log)", micros, narrow=True),
        "yaxis": {"title": {"text": "share of the answers"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    return Figure("Latency", how, data, layout, _CURVES)


def _log(title: str, values: Iterable[float], *, narrow: bool = False) -> dict[str, Any]:
    """A logarithmic axis with as many ticks as there is room for: each digit; 1, 2 and 5; or 1."""
    positive = [value for value in values if value > 0] or [1.0]
    span = max(positive) / min(positive)
    ticks: str | int = "D1" if span < 10 and not narrow else "D2" if span < 300 else 1
    return {"type": "log", "title": {"text": title}, "dtick": ticks, "tickformat": "~s"}


def scaling(blocks: Sequence[Block], looks: dict[str, Look]) -> list[Figure]:
    """Curves over each quantity of which the run had several values while the rest stayed the same."""
    found = []
    for quantity, axis in _QUANTITIES.items():
        groups: dict[Load, list[Block]] = {}
        for block in blocks:
            if block.load.rate is not None or quantity != "rate":
                groups.setdefault(_rest(block.load, quantity), []).append(block)
        for rest, group in groups.items():
            group.sort(key=lambda block: float(getattr(block.load, quantity)))
            if len(group) > 1 and any(block.rows for block in group):
                found += [
                    _scaling_curves(quantity, axis, rest, group, looks, *metric)
                    for metric in (_P99 if rest.rate is not None or quantity == "rate" else _RATE, _CPU)
                ]
    return found


_QUANTITIES: Final = {
    "connections": "connections (log)",
    "size": "bytes per message (log)",
    "rate": "messages per second intended (log)",
}

# Title, axis, what is better, and the attribute of a row.
_RATE: Final = ("Messages per second", "messages per second (log)", "Higher is better", "rate")
_P99: Final = ("99th percentile of latency", "µs (log)", "Lower is better", "p99_spread")
_CPU: Final = ("CPU time per message", "µs of CPU per message (log)", "Lower is better", "cpu_us")


def _rest(load: Load, quantity: str) -> Load:
    """A load without one quantity: loads that differ only in it become equal."""
    if quantity == "connections":  # "all of them send" stays so; a fixed number stays fixed
        return replace(load, connections=0, active=0 if load.active == load.connections else load.active)
    return replace(load, size=0) if quantity == "size" else replace(load, rate=0.0)


def _scaling_curves(
    quantity: str,
    axis: str,
    rest: Load,
    group: Sequence[Block],
    looks: dict[str, Look],
    what: str,
    unit: str,
    better: str,
    attribute: str,
) -> Figure:
    data: list[dict[str, Any]] = []
    for model, look in looks.items():
        points: list[tuple[float, Spread]] = [
            (getattr(block.load, quantity), getattr(row, attribute))
            for block in group
            for row in block.rows
            if row.model == model
        ]
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": model,
                    "x": [at for at, _ in points],
                    "y": [spread.median for _, spread in points],
                    "error_y": _error([spread for _, spread in points])
                    | {"thickness": 1, "width": 3, "color": look.colour},
                    "line": look.line(),
                    "marker": {"symbol": look.marker, "size": 8, "color": look.colour},
                    "hovertemplate": f"{model} at %{{x:,}}: %{{y:,.4~g}}<extra></extra>",
                }
            )
    ticks = sorted({getattr(block.load, quantity) for block in group})
    layout = {
        "xaxis": {
            "type": "log",
            "title": {"text": axis},
            "tickvals": ticks,
            "ticktext": [amount(tick) if quantity == "size" else f"{tick:,.6g}" for tick in ticks],
        },
        "yaxis": _log(unit, [value for trace in data for value in trace["y"]]),
    }
    how = f"{better}; the bars through the points are the intervals of the repeats."
    return Figure(f"{what}: {_kept(rest, quantity)}", how, data, layout, _CURVES)


def _kept(rest: Load, quantity: str) -> str:
    """The quantities that stayed the same, in a few words."""
    words = [rest.workload]
    if quantity != "connections":
        words.append(f"{rest.connections:,} connection{'s' if rest.connections > 1 else ''}")
    if rest.active not in (0, rest.connections):
        words.append(f"{rest.active:,} active")
    if quantity != "size":
        words.append(amount(rest.size))
    if rest.rate:
        words.append(f"{rest.rate:,.6g} messages/s")
    return ", ".join(words)
