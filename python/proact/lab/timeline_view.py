"""Timelines in a terminal: Stevens' five figures, measured, and the sixth, which compares them.

Each figure has two lanes, the application and the kernel, in microseconds since the client sent. All
have one scale, so that they can be compared; the wait for data before has another scale. Lengths are
measured. The order within a call is not; it is drawn as sleep, run queue, work.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.phases import asleep, begun, concerned, copies, longest_wait, outlasts, phases, served
from proact.lab.table import amount, fitting, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import JustifyMethod

    from proact.lab.results import Event, Phases, Timeline

#: Stevens, UNIX Network Programming, vol. 1, 3rd ed., ch. 6.2: the name and the figure of each kind there.
FIGURES: Final = {
    "blocking": "Blocking I/O (fig. 6.1)",
    "non-blocking": "Non-blocking I/O (fig. 6.2)",
    "multiplexing": "I/O multiplexing (fig. 6.3)",
    "signal-driven": "Signal-driven I/O (fig. 6.4)",
    "asynchronous": "Asynchronous I/O (fig. 6.5)",
}

_LABEL: Final = 12
_BEFORE: Final = 18
_FEWEST: Final = 20
_FAR: Final = 2.0
_MARKS: Final = "123456789abcdefghijklmnopqrstuvwxyz"

#: The glyph and style, in the kernel's lane, of what a thread does in a call; the glyphs alone suffice.
_STATES: Final = {
    "asleep": ("░", "yellow"),
    "queue": ("▒", "red"),
    "copying": ("█", "cyan"),
    "asking": ("▓", "magenta"),
}
_PROGRAM: Final = ("━", "green")

#: From so many calls in a row that found nothing, they are shown as one line.
_RUN: Final = 3


def render_timelines(timelines: Sequence[Timeline], width: int) -> RenderableType:
    """Each timeline under the heading of its kind, then all of them compared."""
    parts: list[RenderableType] = [_legend()]
    kinds = dict.fromkeys(timeline["kind"] for timeline in timelines)
    scale = common_end(timelines)
    for kind in kinds:
        parts += ["", Text(FIGURES.get(kind, kind), style="bold")]
        for timeline in timelines:
            if timeline["kind"] == kind:
                parts += ["", _figure(timeline, width, scale)]
    ordered = [timeline for kind in kinds for timeline in timelines if timeline["kind"] == kind]
    parts += ["", Text("The models compared (fig. 6.6)", style="bold"), _compared(ordered, width)]
    parts.append(Text(_COMPARED_NOTE, style="dim"))
    return Group(*parts)


_COMPARED_NOTE: Final = (
    "Medians of all requests, in µs and as shares of the time from when the server began to wait until it "
    "had answered. Wait: asleep in a call. Copy: on a CPU in a call that moves data, going to sleep and "
    "waking in it included. Free: in the program, or in calls that move nothing, as polling does. "
    "Others: CPU time of kernel workers and helper threads, per request."
)


def _legend() -> Text:
    text = Text("One request, as in Stevens, UNP, ch. 6; µs from when it was sent.\nLanes: ", style="dim")
    text.append(_PROGRAM[0], style=_PROGRAM[1]).append(" in the program ", style="dim")
    for state, (glyph, style) in _STATES.items():
        text.append(f" {glyph}", style=style).append(f" {state} ", style="dim")
    return text


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps times to columns: the wait before the request has some columns, the time after it the others."""

    begun: float
    end: float
    columns: int

    def column(self, when: float) -> float:
        """The column of a time in µs, with its fraction."""
        if when < 0:
            return _BEFORE * (1 - max(when, self.begun) / self.begun)
        return _BEFORE + (self.columns - _BEFORE) * min(when / self.end, 1.0)


def finish(timeline: Timeline) -> float:
    """When the request was complete for both sides, in µs."""
    return max([timeline["answered"], *(event["end"] for event in served(timeline))])


def common_end(timelines: Sequence[Timeline]) -> float:
    """The common end of the figures, in µs, so that they can be compared; a far slower one ends later."""
    ends = [finish(timeline) for timeline in timelines]
    return max(end for end in ends if end <= _FAR * median(ends))


def _figure(timeline: Timeline, width: int, common: float) -> RenderableType:
    answered = timeline["answered"]
    heading = Text.assemble((timeline["model"], "bold"), f": {timeline['workload']} of ")
    heading.append(f"{amount(timeline['size'])}, answered after {number(answered)} µs{_range(timeline)}")
    runs = _runs(timeline)
    columns = width - _LABEL - 1
    if columns < _BEFORE + _FEWEST:  # no room for the drawing: the table says the same
        return Group(heading, _calls(runs, answered, width), Text(said(timeline), style="dim"))
    scale = _Scale(begun(timeline), max(common, finish(timeline)), columns)
    return Group(
        heading,
        _axis(scale),
        _line("", _marks(runs, scale)),
        _line("application", _application(timeline, scale)),
        _line("kernel", _kernel(timeline, scale)),
        _calls(runs, answered, width),
        Text(said(timeline), style="dim"),
    )


def _range(timeline: Timeline) -> str:
    every = [each["answer"] for each in timeline.get("requests", [])]
    if len(every) < 2:
        return ""
    return f" (median of {len(every)}, {number(min(every))} to {number(max(every))})"


def _axis(scale: _Scale) -> Text:
    waited = f"{number(-scale.begun)} µs before" if scale.begun < 0 else ""
    last = f"{number(scale.end)} µs"
    room = scale.columns - _BEFORE
    middle = f"{number(scale.end / 2)}".center(room - 2 * len(last))
    return Text(f"{'':{_LABEL}}{waited:<{_BEFORE}}╷{'0':<{len(last)}}{middle}{last}", style="dim")


def _line(label: str, lane: Text) -> Text:
    return Text(f"{label:<{_LABEL}}") + lane[:_BEFORE] + Text("│", style="dim") + lane[_BEFORE:]


def _marks(runs: list[list[Event]], scale: _Scale) -> Text:
    """The number of each call over the column in which it begins; the first one if several begin there."""
    line = [" "] * scale.columns
    for mark, run in zip(_MARKS, runs, strict=False):
        at = min(int(scale.column(run[0]["start"])), scale.columns - 1)
        if line[at] == " ":
            line[at] = mark
    return Text("".join(line), style="bold")


def _application(timeline: Timeline, scale: _Scale) -> Text:
    free = [1.0] * scale.columns
    for event in concerned(timeline):
        for at, share in _shares(scale, event["start"], event["end"]):
            free[at] -= share
    # Show nothing after the answer has left and the next wait has begun.
    last = scale.column(max((event["end"] for event in served(timeline)), default=0.0))
    glyphs = (_PROGRAM[0] if share > 0.1 and at < last else " " for at, share in enumerate(free))
    return Text("".join(glyphs), style=_PROGRAM[1])


def _kernel(timeline: Timeline, scale: _Scale) -> Text:
    """The state that takes most of each column; none if all threads are in the program."""
    columns: list[dict[str, float]] = [{} for _ in range(scale.columns)]
    for event in concerned(timeline):
        at = event["start"]
        if outlasts(event, timeline["answered"]):
            # Its work before the answer is not known: all of it counts for the next request.
            parts = [("asleep", event["end"] - at)]
        else:
            work = "copying" if copies(event) else "asking"
            parts = [("asleep", asleep(event)), ("queue", event["run_queue"]), (work, event["cpu"])]
        for state, length in parts:
            for column, share in _shares(scale, at, at + length):
                columns[column][state] = columns[column].get(state, 0.0) + share
            at += length
    text = Text()
    for taken in columns:
        most = max(taken, key=taken.__getitem__, default=None)
        glyph, style = _STATES[most] if most else (" ", "")
        text.append(glyph, style=style)
    return text


def _shares(scale: _Scale, start: float, end: float) -> list[tuple[int, float]]:
    """The columns that a span of time reaches into, and how much of each it fills."""
    left, right = scale.column(start), min(scale.column(end), float(scale.columns))
    return [
        (at, share)
        for at in range(int(left), min(int(right) + 1, scale.columns))
        if (share := min(right, at + 1) - max(left, at)) > 0
    ]


def _runs(timeline: Timeline) -> list[list[Event]]:
    """The calls; many in a row that found nothing are taken together."""
    runs: list[list[Event]] = []
    for failed, group in groupby(concerned(timeline), key=lambda event: "errno" in event):
        events = list(group)
        if failed and len(events) >= _RUN:
            runs.append(events)
        else:
            runs += [[event] for event in events]
    return runs


#: The columns of the table of calls and of the comparison, and those that a narrow terminal can do without.
_CALLS: Final = (
    {"": 1, "call": 24} | dict.fromkeys(("at", "lasted", "asleep", "queue", "on a CPU"), 9) | {"returned": 10}
)
_CALLS_SPARE: Final = ("queue", "on a CPU", "returned", "asleep", "lasted")
_MODELS: Final = {
    "model": 15,
    "waits in": 14,
    **dict.fromkeys(("wait %", "copy %", "free %"), 6),
    **dict.fromkeys(("copying", "asking", "queue", "program", "others", "answer"), 7),
}
_MODELS_SPARE: Final = (
    *("queue", "others", "asking", "program", "copying"),
    *("free %", "copy %", "wait %"),
)


def _calls(runs: list[list[Event]], answered: float, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    columns = fitting(_CALLS, width, _CALLS_SPARE)
    for heading, size in columns.items():
        if heading == "returned":
            table.add_column(heading, overflow="ellipsis", no_wrap=True)
        else:
            figure = heading not in ("", "call")
            table.add_column(heading, width=size, justify="right" if figure else "left", no_wrap=True)

    def add(*cells: str) -> None:
        table.add_row(*(cell for heading, cell in zip(_CALLS, cells, strict=False) if heading in columns))

    for mark, run in zip(_MARKS, runs, strict=False):
        first, lasted = run[0], sum(event["end"] - event["start"] for event in run)
        queue, cpu = sum(event["run_queue"] for event in run), sum(event["cpu"] for event in run)
        shown = [_signed(first["start"]), *map(number, (lasted, sum(map(asleep, run)), queue, cpu))]
        if len(run) == 1 and outlasts(first, answered):
            add(mark, _named(run), shown[0], "goes on")
            continue
        add(mark, _named(run), *shown, _returned(run))
    if len(runs) > len(_MARKS):
        add("", f"and {len(runs) - len(_MARKS)} more")
    return table


def _named(run: list[Event]) -> str:
    names = ", ".join(dict.fromkeys(event["call"] for event in run))
    if len(run) > 1:
        return f"{len(run):,} x {names}"
    # The number of a ring here is its index among the registered rings, not an fd.
    return f"{names}({run[0]['fd']})" if run[0]["fd"] >= 0 and run[0]["role"] != "ring" else names


def _returned(run: list[Event]) -> str:
    failed = dict.fromkeys(event["errno"] for event in run if "errno" in event)
    if failed:
        return ", ".join(errno.errorcode.get(each, str(each)) for each in failed)
    call, result = run[0]["call"], f"{run[0]['result']:,}"
    if call in ("sigwaitinfo", "sigtimedwait"):
        return f"signal {result}"
    units = {"moves": " bytes", "ring": " handed over"}
    ready = " ready" if "poll" in call or "select" in call else ""
    return result + units.get(run[0]["role"], ready)


def _signed(value: float) -> str:
    return f"−{number(-value)}" if value < 0 else number(value)


def said(timeline: Timeline) -> str:
    """Where the request waited and which side copied, according to the trace."""
    found, spent = longest_wait(timeline), phases(timeline)
    empty = sum("errno" in event for event in served(timeline))
    if found is not None and spent["waiting"] > spent["asking"]:
        whom = "this connection alone" if found.role == "moves" else "whatever comes first"
        waits = f"Waits in {found.call}, for {whom}"
    else:
        waits = f"Does not wait: {empty:,} calls found nothing"
    moving = dict.fromkeys(event["call"] for event in served(timeline) if copies(event) and event["cpu"])
    copied = f"copied in {', '.join(moving)} by the thread that called" if moving else "no call copied"
    helped = f"; others worked {number(timeline['others'])} µs per request" if timeline["others"] >= 1 else ""
    return f"{waits}; {copied}{helped}."


def _compared(timelines: Sequence[Timeline], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    columns = fitting(_MODELS, width, _MODELS_SPARE)
    for heading, size in columns.items():
        justify: JustifyMethod = "left" if heading in ("model", "waits in") else "right"
        table.add_column(heading, width=size, justify=justify, no_wrap=True)
    for timeline in timelines:
        spent = medians(timeline)
        found = longest_wait(timeline)
        whole = sum(value for name, value in spent.items() if name != "answer") or 1.0  # type: ignore[misc]
        free = spent["asking"] + spent["program"]
        cells = (
            timeline["model"],
            found.call if found is not None and spent["waiting"] > spent["asking"] else "-",
            *(f"{share / whole * 100:.1f}" for share in (spent["waiting"], spent["copying"], free)),
            *(number(spent[name]) for name in ("copying", "asking", "run_queue", "program")),
            number(timeline["others"]),
            number(spent["answer"]),
        )
        named = zip(_MODELS, cells, strict=True)
        table.add_row(*(cell for heading, cell in named if heading in columns))
    return table


def medians(timeline: Timeline) -> Phases:
    """The phases of a request: the medians over all requests."""
    every = timeline.get("requests") or [phases(timeline)]
    names = ("answer", "waiting", "copying", "asking", "run_queue", "program")
    return {name: median(each[name] for each in every) for name in names}  # type: ignore[literal-required,return-value]
