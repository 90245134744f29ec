"""The charts of single requests: the comparison, then Stevens' five figures on one axis of real time.

``phases.py`` adds up the calls. A call is drawn as what its thread did in it: asleep, ready to
run, on a CPU. Their lengths are measured; their order within the call is not.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from proact.lab.phases import asleep, concerned, copies, outlasts
from proact.lab.report.bars import Figure, scale_end, short
from proact.lab.report.looks import PARTS, part_bars
from proact.lab.table import amount
from proact.lab.timeline_view import FIGURES, common_end, medians, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proact.lab.results import Event, Timeline

_LANE: Final = 17  # px
_AXES: Final = 72

#: The time before the request that is shown, as a share of the time after it.
_BEFORE: Final = 0.25

#: The parts of a request's time, each with the part whose colour it has and its name here.
_SPENT: Final = {
    "waiting": ("waiting", "waiting"),
    "run_queue": ("run_queue", "run queue"),
    "copying": ("copying", "copying"),
    "asking": ("asking", "asking (free)"),
    "program": ("user", "in the program (free)"),
}

HOW: Final = (
    "All models on one axis: 0 is when the client sent the request, a dotted line when it had the answer. "
    "The upper lane is the server's program, the lower one the kernel, working or sleeping for it; two lanes "
    "for each thread that moved the data. How long a call was asleep, in the run queue and at work is "
    "measured; in which order is not."
)

#: One bar: lane, from, to (µs), and its text.
_Bar = tuple[str, float, float, str]


def of_requests(timelines: Sequence[Timeline]) -> list[Figure]:
    """How the models compare, without the wait first; then all requests, call by call, on one axis."""
    if not timelines:
        return []
    kinds = list(dict.fromkeys(each["kind"] for each in timelines))
    ordered = sorted(timelines, key=lambda each: kinds.index(each["kind"]))
    groups: dict[tuple[str, int], list[Timeline]] = {}
    for each in ordered:
        groups.setdefault((each["workload"], each["size"]), []).append(each)
    return [*comparison(ordered), *(_requests(group, common_end(group)) for group in groups.values())]


def in_words(timelines: Sequence[Timeline]) -> list[tuple[str, str]]:
    """What each request shows: the model with its kind, and a sentence."""
    return [(f"{each['model']}: {FIGURES.get(each['kind'], each['kind'])}", said(each)) for each in timelines]


def states(event: Event, answered: float) -> Iterator[tuple[str, float, float]]:
    """The parts of a call: what the thread did, from, to (µs)."""
    at = event["start"]
    if outlasts(event, answered):  # the wait for the next request, to which its work counts
        yield "waiting", at, event["end"]
        return
    work = "copying" if copies(event) else "asking"
    lengths = (("waiting", asleep(event)), ("run_queue", event["run_queue"]), (work, event["cpu"]))
    for part, length in lengths:
        if length > 0:
            yield part, at, at + length
        at += length


def _requests(timelines: Sequence[Timeline], end: float) -> Figure:
    """All requests on one axis of time: for each thread its program, and the kernel within its calls."""
    bars: dict[str, list[_Bar]] = {}
    marks: list[tuple[list[str], Timeline]] = []
    every: list[str] = []
    for timeline in timelines:
        lanes = _add(timeline, bars)
        every += lanes
        marks.append((lanes, timeline))
    first, last = -_BEFORE * end, 1.04 * end
    shown = {part: _within(bars.get(part, []), first, last) for part in PARTS}
    shapes = [_mark(0.0, -0.5, len(every) - 0.5)]
    notes = [_word("sent", 0.0)]
    for lanes, timeline in marks:
        top = every.index(lanes[0])
        if timeline["answered"] <= last:
            shapes.append(_mark(timeline["answered"], top - 0.5, top + len(lanes) - 0.5))
        else:
            notes.append(_beyond(timeline["answered"], top, last))
    layout = {
        "barmode": "overlay",
        "bargap": 0.15,
        "xaxis": {"title": {"text": "µs since it was sent"}, "range": [first, last]},
        "yaxis": {
            "title": {"text": "lane"},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": every,
            "range": [len(every) - 0.5, -0.5],
            "dtick": 1,
            "showgrid": False,
        },
        "shapes": shapes,
        "annotations": notes,
    }
    data = [_trace(part, found) for part, found in shown.items() if found]
    return Figure("Call by call", HOW, data, layout, _LANE * len(every) + _AXES)


def _add(timeline: Timeline, bars: dict[str, list[_Bar]]) -> list[str]:
    """Add the bars of one request; return its lanes, from the top."""
    events = concerned(timeline)
    threads = sorted({event["thread"] for event in events})
    every: list[str] = []
    for thread in threads:
        lanes = _lanes(timeline["model"], thread, len(threads))
        every += lanes
        since: float | None = None  # before its first and after its last call, nothing is known of a thread
        for event in (each for each in events if each["thread"] == thread):
            if since is not None and since < event["start"]:
                text = f"in the program, {event['start'] - since:,.1f} µs"
                bars.setdefault("user", []).append((lanes[0], since, event["start"], text))
            since = event["end"]
            for part, start, stop in states(event, timeline["answered"]):
                whole = event["end"] - event["start"]
                text = f"{_call(event)}: {PARTS[part][0]}, {stop - start:,.1f} of {whole:,.1f} µs"
                bars.setdefault(part, []).append((lanes[1], start, stop, text))
    return every


def _lanes(model: str, thread: int, threads: int) -> tuple[str, str]:
    number = f" {thread}" if threads > 1 else ""
    return f"{model}{number}", f"{model}{number}, kernel"


def _call(event: Event) -> str:
    """A call in the notation of strace."""
    returned = errno.errorcode.get(event["errno"], "error") if "errno" in event else f"{event['result']:,}"
    return f"{event['call']}({event['fd'] if event['fd'] >= 0 else ''}) = {returned}"


def _within(bars: Sequence[_Bar], first: float, last: float) -> list[_Bar]:
    """The bars, cut to the picture."""
    cut = [(lane, max(start, first), min(stop, last), text) for lane, start, stop, text in bars]
    return [each for each in cut if each[1] < each[2]]


def _trace(part: str, bars: Sequence[_Bar]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": "in the program" if part == "user" else PARTS[part][0],
        "y": [lane for lane, *_ in bars],
        "base": [start for _, start, _, _ in bars],
        "x": [stop - start for _, start, stop, _ in bars],
        "text": [text for *_, text in bars],
        "textposition": "none",
        "marker": part_bars(part),
        "hovertemplate": "%{text}<extra></extra>",
    }


def _mark(at: float, top: float, bottom: float) -> dict[str, Any]:
    line = {"width": 1, "dash": "dot"}
    return {"type": "line", "x0": at, "x1": at, "y0": top, "y1": bottom, "line": line}


def _word(text: str, at: float) -> dict[str, Any]:
    """A word over a mark."""
    place = {"x": at, "xanchor": "center", "yref": "paper", "y": 1, "yanchor": "bottom"}
    return {"text": text, "showarrow": False} | place


def _beyond(answered: float, top: int, last: float) -> dict[str, Any]:
    """When a request was answered that took longer than the axis."""
    place = {"x": last, "xanchor": "right", "y": top, "yanchor": "middle"}
    return {"text": f"answered at {answered:,.0f} →", "showarrow": False} | place


def comparison(timelines: Sequence[Timeline]) -> list[Figure]:
    """Stevens' sixth figure: how each model spends a request's time; then the same chart without the wait."""
    several = len({(each["workload"], each["size"]) for each in timelines}) > 1
    names = [
        f"{each['model']}, {each['workload']} {amount(each['size'])}" if several else each["model"]
        for each in timelines
    ]
    spent = [medians(each) for each in timelines]
    micros = {part: [each[part] for each in spent] for part in _SPENT}  # type: ignore[literal-required]
    whole = [sum(each) or 1.0 for each in zip(*micros.values(), strict=True)]
    shares = {part: [a / b for a, b in zip(each, whole, strict=True)] for part, each in micros.items()}
    share_axis = {"title": {"text": "share of the time"}, "tickformat": ".0%", "range": [0, 1]}
    del micros["waiting"]
    work = [sum(each) for each in zip(*micros.values(), strict=True)]
    shown = scale_end(work)
    cut = tuple((name, short(each)) for name, each in zip(names, work, strict=True) if each > 1.03 * shown)
    micros_axis = {"title": {"text": "µs per request"}, "range": [0, 1.03 * shown]}
    how = "What the server's threads did for a request besides sleeping: shorter is less work."
    if max(work) > shown:
        how += " The longest run off the right edge, where their length stands: tap twice to see all."
    several_words = (
        "From when the server began to wait until it had answered: blocked, or free. Medians of all."
    )
    return [
        _stacked(
            "The models compared, without the wait (fig. 6.6)",
            how,
            names,
            micros,
            micros_axis,
            "%{x:,.3~g} µs",
            cut,
        ),
        _stacked("The same with the wait, as shares", several_words, names, shares, share_axis, "%{x:.1%}"),
    ]


def _stacked(
    title: str,
    how: str,
    names: list[str],
    values: dict[str, list[float]],
    axis: dict[str, Any],
    shown: str,
    cut: tuple[tuple[str, str], ...] = (),
) -> Figure:
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": _SPENT[part][1],
            "y": names,
            "x": each,
            "marker": part_bars(_SPENT[part][0]),
            "hovertemplate": f"%{{y}}: {shown} {_SPENT[part][1]}<extra></extra>",
        }
        for part, each in values.items()
    ]
    layout = {
        "barmode": "stack",
        "xaxis": axis,
        "yaxis": {
            "title": {"text": "model"},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names,
            "autorange": "reversed",
            "dtick": 1,
            "showgrid": False,
        },
    }
    return Figure(title, how, data, layout, 24 * len(names) + _AXES, cut)
