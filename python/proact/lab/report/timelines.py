"""The charts of single requests: the calls of each model on an axis of real time, and all models compared.

A call is drawn as what the thread did in it: asleep, then ready to run, then on a CPU. Their lengths are
measured; their order within the call is the usual one (data is waited for, then copied), not measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proact.lab.report.figures import Figure
from proact.lab.report.looks import PARTS, part_bars
from proact.lab.table import amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proact.lab.results import Event, Timeline

_LANE: Final = 34  # px
_AXES: Final = 72

#: What a thread does on a CPU in a call, by the call's role.
_WORK: Final = {"moves": "copying", "ring": "copying", "asks": "asking", "waits": "asking"}

#: The parts that a request is told in; what is left of the time, the program has.
_SHARES: Final = ("waiting", "run_queue", "copying", "asking")


def of_requests(timelines: Sequence[Timeline]) -> list[Figure]:
    """One chart for each timeline, all on the same axis, and the sixth: all models compared."""
    if not timelines:
        return []
    end = max(each["answered"] for each in timelines)
    return [*(_request(each, end) for each in timelines), comparison(timelines)]


def phases(event: Event) -> Iterator[tuple[str, float, float]]:
    """What the thread did in a call: the part, from, to (µs)."""
    start, end = event["start"], event["end"]
    ready = max(start, end - event["cpu"] - event["run_queue"])
    running = max(ready, end - event["cpu"])
    for part, since, until in (
        ("waiting", start, ready),
        ("run_queue", ready, running),
        (_WORK[event["role"]], running, end),
    ):
        if until > since:
            yield part, since, until


def _request(timeline: Timeline, end: float) -> Figure:
    """Two lanes for each thread: the application between its calls, the kernel within them."""
    threads = sorted({event["thread"] for event in timeline["events"]})
    first, last = -0.12 * end, 1.12 * end
    bars: dict[str, list[tuple[str, float, float, str]]] = {}
    for thread in threads:
        number = f" {thread}" if len(threads) > 1 else ""
        since: float | None = None  # before its first call and after its last nothing is known of a thread
        for event in (each for each in timeline["events"] if each["thread"] == thread):
            if since is not None and since < event["start"]:
                said = f"outside of calls: {event['start'] - since:,.1f} µs"
                bars.setdefault("user", []).append((f"application{number}", since, event["start"], said))
            since = event["end"]
            for part, start, stop in phases(event):
                said = (
                    f"{event['call']}({event['fd']}) = {event['result']}: {PARTS[part][0]}, "
                    f"{stop - start:,.1f} of {event['end'] - event['start']:,.1f} µs"
                )
                bars.setdefault(part, []).append((f"kernel{number}", start, stop, said))
    lanes = [
        f"{lane}{f' {thread}' if len(threads) > 1 else ''}"
        for thread in threads
        for lane in ("application", "kernel")
    ]
    data = [_lane(part, _within(bars[part], first, last)) for part in PARTS if part in bars]
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "xaxis": {"title": {"text": "µs since the request was sent"}, "range": [first, last]},
        "yaxis": {
            "title": {"text": "lane"},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": lanes,
            "range": [len(lanes) - 0.5, -0.5],
            "showgrid": False,
        },
        "shapes": [_mark(timeline["sent"]), _mark(timeline["answered"])],
        "annotations": [_word("sent", timeline["sent"]), _word("answered", timeline["answered"])],
    }
    how = (
        f"{len(timeline['events'])} calls. The kernel's lane is the thread inside a call: asleep, or at work."
    )
    if timeline["others"]:
        how += f" Other threads worked {timeline['others']:,.1f} µs meanwhile."
    title = f"{timeline['model']} ({timeline['kind']})"
    return Figure(title, how, data, layout, _LANE * len(lanes) + _AXES)


def _within(
    bars: list[tuple[str, float, float, str]], first: float, last: float
) -> list[tuple[str, float, float, str]]:
    """The bars as far as they are in the picture."""
    cut = [(lane, max(start, first), min(stop, last), said) for lane, start, stop, said in bars]
    return [each for each in cut if each[1] < each[2]]


def _lane(part: str, bars: list[tuple[str, float, float, str]]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": "outside of calls" if part == "user" else PARTS[part][0],
        "y": [lane for lane, *_ in bars],
        "base": [start for _, start, _, _ in bars],
        "x": [stop - start for _, start, stop, _ in bars],
        "text": [said for *_, said in bars],
        "textposition": "none",
        "marker": part_bars(part),
        "hovertemplate": "%{text}, from %{base:,.1f} µs<extra></extra>",
    }


def _mark(at: float) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": at,
        "x1": at,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"width": 1, "dash": "dot"},
    }


def _word(text: str, at: float) -> dict[str, Any]:
    return {"text": text, "x": at, "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}


def shares(timeline: Timeline) -> dict[str, float]:
    """Where the thread that moved the data was between request and answer; in parts that add up to 1.

    "free" is the time outside of calls: the program had it, for this work or for any other.
    """
    moved = [each["thread"] for each in timeline["events"] if each["role"] in ("moves", "ring")]
    of_thread = max(moved, key=moved.count, default=0)
    whole = timeline["answered"] - timeline["sent"]
    spent = dict.fromkeys(_SHARES, 0.0)
    for event in timeline["events"]:
        if event["thread"] == of_thread:
            for part, start, stop in phases(event):
                inside = min(stop, timeline["answered"]) - max(start, timeline["sent"])
                spent[part] += max(0.0, inside) / whole
    return spent | {"free": max(0.0, 1.0 - sum(spent.values()))}


def comparison(timelines: Sequence[Timeline]) -> Figure:
    """Stevens' sixth figure: all models side by side, each request cut into its phases."""
    names = [
        f"{each['model']}, {each['workload']} {amount(each['size'])}"
        if len({(one["workload"], one["size"]) for one in timelines}) > 1
        else each["model"]
        for each in timelines
    ]
    found = [shares(each) for each in timelines]
    data = []
    for part in (*_SHARES, "free"):
        shown = "user" if part == "free" else part
        label = "free for the program" if part == "free" else PARTS[part][0]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": label,
                "y": names,
                "x": [each[part] for each in found],
                "marker": part_bars(shown),
                "hovertemplate": f"%{{y}}: %{{x:.1%}} {label}<extra></extra>",
            }
        )
    layout = {
        "barmode": "stack",
        "xaxis": {
            "title": {"text": "share until the answer"},
            "tickformat": ".0%",
            "range": [0, 1],
        },
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
    how = "Of the thread that moved the data: blocked (waiting, copying, asking) or free for the program."
    return Figure("The models compared", how, data, layout, 26 * len(names) + _AXES)
