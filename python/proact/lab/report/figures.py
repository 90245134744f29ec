"""The charts of the measurements: each has a title, a line on how to read it, and plotly's JSON.

The page sets the colours of text and grid, because it knows whether it is dark. All numbers come from
``summary.py``; a chart without data is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from proact.lab.registry import Kind
from proact.lab.report.bars import AXES, ROW, Figure, bars_to_scale, error, models_axis, scale_end, short
from proact.lab.report.looks import PARTS, Look, part_bars
from proact.lab.summary import latencies
from proact.lab.table import amount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proact.lab.results import Document
    from proact.lab.spread import Spread
    from proact.lab.summary import Block, Load, Row

_CURVES: Final = 340  # px, a chart of curves, without its legend

#: More curves than this can't be told apart: the best of each kind is drawn over the others in grey.
_LEGIBLE: Final = 6
_KINDS: Final = (Kind.MULTIPLEXING, Kind.ASYNCHRONOUS, Kind.BLOCKING, Kind.SIGNAL_DRIVEN)
_VIVID: Final = ("#0a78b8", "#d55e00", "#00966d", "#c8649c")
_GREY: Final = (
    " The best model of each kind stands out (not those that only poll); point at a grey line for its "
    "name, or read the table."
)
_GREY_LINE: Final = "#9a9791"

#: In a chart of split time, waiting is cut off at so many times the work of the busiest model.
_WAITING_SHOWN: Final = 3.0


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
        [(row.shown, value(row)) for row in rows],
        [look.colour for look in looked],
        [look.pattern for look in looked],
        [row.kind for row in rows],
    )


def _names(rows: Sequence[Row]) -> dict[str, Any]:
    """The axis with the models, the first on top."""
    return models_axis([row.shown for row in rows])


def split_bars(rows: Sequence[Row]) -> Figure:
    """Where the server's threads were, for each message, as stacked bars."""
    found = [(row, row.split) for row in rows if row.split and row.split["messages"]]
    names = [row.shown for row, _ in found]
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
    wholes = [work + waiting for work, waiting in zip(busy, micros["waiting"], strict=True)]
    whole = max(*wholes, *micros["others"])
    shown = max(
        min(scale_end(busy) * _WAITING_SHOWN, max(scale_end(busy), scale_end(wholes))),
        scale_end(micros["others"]),
    )
    how = (
        "Each bar is the time that the server's threads lived per message, and what they did meanwhile; one "
        "pass, so without an interval."
    )
    if whole > shown:
        how += " The longest bars run off the right edge, where their length stands: tap twice to see all."
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "µs per message"}, "range": [0, min(whole, shown) * 1.03]},
        "yaxis": _names([row for row, _ in found]),
    }
    cut = tuple(
        (name, short(long))
        for name, long in zip(names, wholes, strict=True)
        if long > min(whole, shown) * 1.03
    )
    return Figure("Where the time goes", how, data, layout, (ROW + 4) * len(names) + AXES, cut)


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
    data = highlighted(data, _representatives(block.rows))
    how = "How many of the answers came within so many microseconds: left is faster, steep is steadier."
    how += _GREY * (len(data) > _LEGIBLE)
    micros = [each for trace in data for each in trace["x"]]
    layout = {
        "xaxis": _log("latency, µs (log)", micros, narrow=True),
        "yaxis": {"title": {"text": "share of the answers"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    return Figure("Latency", how, data, layout, _CURVES)


def _representatives(rows: Sequence[Row]) -> list[str]:
    """The models to tell from the rest: the best of each kind, a ceiling only if there is no other."""
    best: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (row.family == "ceiling", -row.rate.median)):
        best.setdefault(row.kind, row.model)
    return [best[kind] for kind in _KINDS if kind in best]


def highlighted(curves: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The curves; if there are too many to tell apart, those of ``names`` on top and the others in grey."""
    if len(curves) <= _LEGIBLE:
        return curves
    grey = [curve for curve in curves if curve["name"] not in names]
    for at, curve in enumerate(grey):
        curve["line"] = {**curve["line"], "color": _GREY_LINE, "width": 1, "dash": "solid"}
        curve["opacity"] = 0.6
        if "marker" in curve:
            curve["marker"] = {**curve["marker"], "color": _GREY_LINE, "size": 3}
            curve["error_y"] = {**curve["error_y"], "visible": False}
        curve |= {"legendgroup": "others", "showlegend": at == 0}
        curve["name"], curve["meta"] = "the others", curve["name"]
    named = [curve for name in names for curve in curves if curve["name"] == name]
    for colour, curve in zip(_VIVID, named, strict=False):
        curve["line"] = {**curve["line"], "color": colour, "width": 2.5}
        if "marker" in curve:
            curve["marker"] = {**curve["marker"], "color": colour}
            curve["error_y"] = {**curve["error_y"], "color": colour}
    return [*grey, *named]


#: Up to this ratio of the highest to the lowest, there is room for each digit on an axis of 340 px.
_EACH_DIGIT: Final = 5

#: From this ratio on, 1, 2 or 5 times a power of ten lies between the lowest and the highest.
_NEAR: Final = 2.5


def _log(title: str, values: Iterable[float], *, narrow: bool = False) -> dict[str, Any]:
    """A logarithmic axis with as many ticks as there is room for: each digit; 1, 2 and 5; or 1.

    Between near values there may be none of these; the drawing finds others then.
    """
    positive = [value for value in values if value > 0] or [1.0]
    span = max(positive) / min(positive)
    ticks: str | int = "D1" if span < _EACH_DIGIT and not narrow else "D2" if span < 300 else 1
    dense = {"nticks": 4} if span < _NEAR else {"dtick": ticks}
    return {"type": "log", "title": {"text": title}, "tickformat": "~s"} | dense


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
    ends: list[float] = []  # of all intervals, which are on the axis as well
    for model, look in looks.items():
        points: list[tuple[float, Spread]] = [
            (getattr(block.load, quantity), getattr(row, attribute))
            for block in group
            for row in block.rows
            if row.model == model
        ]
        ends += [end for _, spread in points for end in (spread.low, spread.high)]
        if points:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": model,
                    "x": [at for at, _ in points],
                    "y": [spread.median for _, spread in points],
                    "error_y": error([spread for _, spread in points])
                    | {"thickness": 1, "width": 3, "color": look.colour},
                    "line": look.line(),
                    "marker": {"symbol": look.marker, "size": 8, "color": look.colour},
                    "hovertemplate": f"{model} at %{{x:,}}: %{{y:,.4~g}}<extra></extra>",
                }
            )
    data = highlighted(data, _representatives(group[-1].rows))
    ticks = sorted({getattr(block.load, quantity) for block in group})
    layout = {
        "xaxis": {
            "type": "log",
            "title": {"text": axis},
            "tickvals": ticks,
            "ticktext": [amount(tick) if quantity == "size" else f"{tick:,.6g}" for tick in ticks],
        },
        "yaxis": _log(unit, ends),
    }
    how = f"{better}; the bars through the points are the intervals of the repeats."
    how += _GREY * (len(data) > _LEGIBLE)
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
