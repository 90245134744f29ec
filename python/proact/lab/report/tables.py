"""The parts of the page that are text and numbers. Text from a file or a machine is escaped."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any, Final

from proact.lab.claims.trial import circumstances
from proact.lab.claims.view import tally
from proact.lab.files import FILES
from proact.lab.report.timelines import in_words
from proact.lab.summary import verdict, winners
from proact.lab.table import (
    CACHES,
    CLOSED_LOOP_NOTE,
    LEGEND,
    conditions,
    describe,
    mebi,
    notes,
    number,
    warnings,
)
from proact.lab.table import machine as at_a_glance

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from proact.lab.results import Claim, Document, Timeline
    from proact.lab.spread import Spread
    from proact.lab.summary import Block, Row

_MARKS: Final = {"supported": "✓", "contradicted": "✗", "depends": "≈", "not measured": "–"}


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], *, numbers: Container[int] = ()) -> str:
    """A table that scrolls in its own box; ``numbers`` are the columns, from 0, that hold numbers."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=number' if at in numbers else ''}>{escape(cell)}</td>"
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{whole}</div>'


def machine(document: Document) -> str:
    """What was measured and where, in a few lines under the title."""
    facts, settings = document["environment"], document["settings"]
    lines = [
        f"{at_a_glance(facts)}, {facts['python']}",
        document["started"].replace("T", " "),
    ]
    if document["cells"]:
        lines.insert(
            1,
            f"{settings['repeat']} × {settings['duration']:g} s per cell after {settings['warmup']:g} s of "
            f"warm-up, {conditions(document)}; seed {document['seed']}",
        )
    return "<br>".join(map(escape, lines))


def stopped(document: Document) -> str:
    """A warning about a run that was stopped early."""
    how_far = document.get("stopped")
    return f'<p class="warning">Stopped early: {escape(how_far)}.</p>' if how_far else ""


def when_each_wins(blocks: Sequence[Block]) -> str:
    """The best models under each load, found by ``summary.py``."""
    rows = [
        (
            describe(winner.load),
            ", ".join(winner.fastest) or "–",
            "–" if winner.gain is None else str(winner.gain),
            ", ".join(winner.thriftiest),
        )
        for winner in winners(blocks)
    ]
    if not rows:
        return ""
    note = (
        "Models that stand together cannot be told apart: their intervals overlap. Ahead: the rate of "
        "the fastest as a multiple of the best that is not level with it. Rust's ceilings do not take part."
    )
    return table(("load", "fastest", "ahead", "least CPU"), rows, numbers=(2,)) + f'<p class="how">{note}</p>'


def block_text(block: Block) -> str:
    """The conclusions from one load's data, and the warnings about it."""
    lines = [escape(line) for line in verdict(block)]
    if (cache := CACHES.get(block.load.workload)) is not None:
        lines.append(escape(cache))
    lines += map(escape, notes(block))
    if block.load.rate is None and block.load.workload not in FILES:
        lines.append(escape(CLOSED_LOOP_NOTE))
    lines += [f'<span class="warning">{escape(line)}</span>' for line in warnings(block)]
    return f"<p>{'<br>'.join(lines)}</p>" if lines else ""


def block_numbers(block: Block) -> str:
    """All numbers of one load."""
    if not block.rows:
        return ""
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("messages/s", lambda row: f"{row.rate.median:,.0f}{'*' if row.load_bound else ''}"),
        ("±", lambda row: _interval(row.rate)),
        ("p50 µs", lambda row: number(row.p50)),
        ("p99 µs", lambda row: number(row.p99)),
        ("p99.9 µs", lambda row: number(row.p999)),
        ("max µs", lambda row: number(row.slowest)),
        ("CPU µs", lambda row: number(row.cpu_us.median)),
        ("±", lambda row: _interval(row.cpu_us)),
        ("in kernel", lambda row: f"{row.system:.0%}"),
        ("calls", lambda row: "–" if row.calls is None else number(row.calls.median)),
        ("±", lambda row: _interval(row.calls)),
        ("switches", lambda row: number(row.switches)),
        ("threads", lambda row: "–" if row.threads is None else f"{row.threads}"),
        ("KiB/conn.", lambda row: "–" if row.memory is None else number(row.memory.median / 1024)),
        ("±", lambda row: _interval(row.memory)),
    ]
    if any(row.fixed for row in block.rows):
        columns += [
            ("fixed MiB", lambda row: "–" if row.fixed is None else number(row.fixed.median / (1 << 20))),
            ("kernel KiB/conn.", lambda row: "–" if row.kernel is None else number(row.kernel.median / 1024)),
            ("±", lambda row: _interval(row.kernel)),
        ]
    if any(row.slow is not None for row in block.rows):
        columns.append(("slow ms", lambda row: "–" if row.slow is None else number(row.slow / 1e3)))
    if any(row.grown is not None for row in block.rows):
        columns.append(("+MiB", lambda row: "–" if row.grown is None else mebi(row.grown.median)))
        columns.append(("±", lambda row: _interval(row.grown)))
    if any(row.fullest is not None for row in block.rows):
        columns.append(("fullest", lambda row: "–" if row.fullest is None else number(row.fullest.median)))
    if any(row.unsent > 0 for row in block.rows):
        columns.append(("unsent", lambda row: f"{row.unsent:.1%}"))
    rows = [(row.shown, row.kind, *(cell(row) for _, cell in columns)) for row in block.rows]
    numbers = table(
        ("model", "I/O model", *(heading for heading, _ in columns)), rows, numbers=range(2, 2 + len(columns))
    )
    legend = escape(f"{LEGEND} ±: half the interval of the median, – for a value that was taken once.")
    return f'<details><summary>All numbers</summary>{numbers}<p class="how">{legend}</p></details>'


def _interval(spread: Spread | None) -> str:
    """Half the interval of a median; – for a value that was taken once, as calls were in older results."""
    return "–" if spread is None or spread.low == spread.high else f"{spread.half_range:.0%}"


def requests(timelines: Sequence[Timeline]) -> str:
    """What each request shows, in words; folded."""
    said = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in in_words(timelines))
    return f"<details><summary>Each request in words</summary><dl>{said}</dl></details>" if said else ""


def claims(found: Sequence[Claim]) -> str:
    """Each claim with its verdict as a word, a mark and a colour; its evidence is folded."""
    cards = "".join(
        f'<article class="claim {claim["verdict"].replace(" ", "-")}">'
        f'<p class="verdict">{_MARKS[claim["verdict"]]} {escape(claim["verdict"])}</p>'
        f"<h3>{escape(claim['text'])}</h3>"
        f"<p>{escape(claim['because'])}</p>"
        f'<p class="how">{escape(claim["source"])}</p>'
        f"{_circumstances(claim)}"
        f"<details><summary>The numbers</summary>"
        f'<pre class="wide" tabindex="0">{escape(_indented(claim["evidence"]))}</pre>'
        "</details></article>"
        for claim in found
    )
    return f'<p>{escape(tally(found))}</p><div class="claims">{cards}</div>' if cards else ""


def _circumstances(claim: Claim) -> str:
    conditions = claim.get("conditions")
    return f'<p class="how">{escape(circumstances(conditions))}</p>' if conditions else ""


def _indented(evidence: dict[str, Any]) -> str:
    return json.dumps(evidence, indent=1, ensure_ascii=False)


def absent(document: Document, blocks: Sequence[Block]) -> str:
    """The models without numbers, each with the loads and the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for block in blocks:
        for each in block.absent:
            how = "FAILED: " if each.failed else ""
            found.setdefault((each.model, how + each.reason), []).append(describe(block.load))
    rows = [
        (model, reason, "all loads" if len(loads) == len(blocks) else "; ".join(loads))
        for (model, reason), loads in found.items()
    ]
    without = document["settings"].get("no_timeline", {})
    rows += [(model, reason, "the timelines") for model, reason in without.items()]
    return table(("model", "reason", "under"), rows) if rows else ""


def environment(document: Document) -> str:
    """The machine and the settings, all of it."""
    facts = flat("", document["environment"]) | flat("settings", document["settings"])
    return table(("what", "value"), facts.items())


def flat(name: str, value: Any) -> dict[str, str]:
    """Nested facts as one list: ``limits.open_files.soft``."""
    if isinstance(value, dict):
        found: dict[str, str] = {}
        for key, each in value.items():
            found |= flat(f"{name}.{key}".lstrip("."), each)
        return found
    if isinstance(value, list | tuple):
        return {name: ", ".join("–" if each is None else str(each) for each in value)}
    return {name: "–" if value is None else str(value)}
