"""The first part of the report: which model to use, by the loads of this run; and the chart of one answer.

The answers are made when the page is written, one for each load, so the page computes nothing: its three
questions choose which answer is shown. Without JavaScript all of them are.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, Final

from proact.lab.choose.answer import Answer, answer, winners
from proact.lab.choose.points import points
from proact.lab.choose.question import Question, work_of
from proact.lab.choose.view import not_compared
from proact.lab.report.bars import Figure, bars_to_scale
from proact.lab.table import amount, describe
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proact.lab.choose.points import Point
    from proact.lab.results import Document
    from proact.lab.summary import Load

_CHOSEN: Final = "#00966d"
_OTHER: Final = "#85827c"
_HOW: Final = (
    "Messages per second under that load; green: recommended. The thin line is the interval of the repeats."
)


def answers(document: Document) -> list[tuple[Load, Answer]]:
    """An answer for each load of a run that a question can be about."""
    return [(point.load, answer(_question(point.load), document)) for point in points(document)]


def _question(load: Load) -> Question:
    work = work_of(load.workload) or "nothing"
    seconds = WORKLOADS[load.workload].seconds or 0.0
    return Question(load.connections, load.active, work, seconds, load.size)


def figure(found: Answer) -> Figure | None:
    """The chart beside an answer: its first load with numbers; the rest are linked."""
    point = next((each for each in found.points if each.rows), None)
    return None if point is None else _bars(point, found.models)


def _bars(point: Point, models: Sequence[str]) -> Figure:
    best = winners(point.rows) if len(point.rows) > 1 else ()
    rows = sorted(point.rows, key=lambda row: (row.model not in best, -row.rate.median))
    return bars_to_scale(
        describe(point.load),
        _HOW,
        "messages per second",
        [(row.model, row.rate) for row in rows],
        [_CHOSEN if row.model in models else _OTHER for row in rows],
    )


def form_and_answers(
    found: Sequence[tuple[Load, Answer]],
    anchors: Mapping[Load, str],
    draw: Callable[[Sequence[Figure]], str],
) -> str:
    """The three questions, and the answer to each combination that was measured."""
    if not found:
        return ""
    asked = [each.question for _, each in found]
    fields = "".join(
        _select(name, label, dict.fromkeys(values))
        for name, label, values in (
            ("many", "Connections", [_many(each) for each in asked]),
            ("does", "A request", [each.does for each in asked]),
            ("size", "How large", [amount(each.size) for each in asked]),
        )
    )
    cards = "".join(_card(load, each, anchors, draw) for load, each in found)
    missing = (
        '<p id="unmeasured" class="warning" hidden>This run has not measured that combination; '
        "<code>proact lab choose --measure</code> does.</p>"
    )
    return f'<form id="choose" class="fields">{fields}</form>{missing}<div id="answers">{cards}</div>'


def _many(question: Question) -> str:
    if question.active == question.connections:
        return f"{question.connections:,}, all of them send"
    return f"{question.connections:,}, {question.active:,} of them send"


def _select(name: str, label: str, values: Mapping[str, Any]) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return f'<label>{label}<select name="{name}">{options}</select></label>'


def _card(
    load: Load, found: Answer, anchors: Mapping[Load, str], draw: Callable[[Sequence[Figure]], str]
) -> str:
    key = escape(json.dumps([_many(found.question), found.question.does, amount(found.question.size)]))
    chart = figure(found)
    evidence = f'<p class="how">Evidence: <a href="#{anchors[load]}">{escape(describe(load))}</a>.'
    if found.unknown:
        evidence += f" Not compared: {escape(not_compared(found))}."
    drawn = draw([chart]) if chart else ""
    kind = "" if found.models else " none"
    return (
        f'<article class="answer{kind}" data-for="{key}"><div><p class="said">{escape(found.sentence)}</p>'
        f"{evidence}</p></div>{drawn}</article>"
    )


def as_reply(found: Answer, source: str, link: str) -> dict[str, Any]:
    """An answer for the live page."""
    chart = figure(found)
    return {
        "sentence": found.sentence,
        "recommended": list(found.models),
        "source": source,
        "link": link,
        "title": chart.title if chart else "",
        "figure": chart.as_json() if chart else None,
        "unknown": not_compared(found),
        "workload": found.question.workload,
    }
