"""The page: its parts in order, with style, scripts and data in one file that fetches nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from proact.lab.report import choice, tables
from proact.lab.report.drawing import plotly_js
from proact.lab.report.figures import of_block, scaling
from proact.lab.report.looks import looks
from proact.lab.report.timelines import of_requests
from proact.lab.summary import blocks
from proact.lab.table import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proact.lab.report.bars import Figure
    from proact.lab.results import Document

#: With this policy, the browser makes sure that no script fetches anything.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


#: A chart of so many px or more takes the whole width.
_TALL: Final = 700
TALL: Final = " class=tall"

#: More loads than this are folded in the contents.
_LISTED: Final = 6

#: The part that stands above everything else, unless there are claims.
FIRST: Final = "Which model to use"


@dataclass(slots=True)
class _Parts:
    """The page so far: its sections, and the charts in them by number."""

    sections: list[str] = field(default_factory=list)
    headings: list[tuple[str, str]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, title: str, *content: str, anchor: str | None = None) -> None:
        """A section, if there is anything in it."""
        if not any(content):
            return
        anchor = anchor or f"part-{len(self.headings)}"
        if self.headings or title != FIRST:
            self.headings.append((anchor, title))
        self.sections.append(f'<section id="{anchor}"><h2>{escape(title)}</h2>{"".join(content)}</section>')

    def draw(self, figures: Sequence[Figure]) -> str:
        """Charts side by side if there is room."""
        drawn = []
        for figure in figures:
            drawn.append(
                f"<figure{TALL * (figure.height > _TALL)}><h3>{escape(figure.title)}</h3>"
                f'<div class="chart" data-figure="{len(self.figures)}" style="height:{figure.height}px">'
                "</div>"
                f"<figcaption>{escape(figure.how)}</figcaption></figure>"
            )
            self.figures.append(figure.as_json())
        return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def to_html(document: Document) -> str:
    """The report of a run. Raises DrawingError without plotly."""
    plotly = plotly_js()
    parts, found, looked = _Parts(), blocks(document), looks(document["models"])
    anchors = {block.load: f"load-{at}" for at, block in enumerate(found)}
    answers = choice.form_and_answers(choice.answers(document), anchors, parts.draw)
    answering = (FIRST, answers), ("What the textbooks say", tables.claims(document["claims"]))
    # What was asked for comes first: of a run for claims, the claims.
    leading, following = reversed(answering) if document["claims"] else answering
    parts.add(*leading)
    first = parts.sections.pop() if parts.sections else ""
    parts.add(*following)
    parts.add("When each wins", tables.when_each_wins(found))
    if requests := parts.draw(of_requests(document["timelines"])):
        parts.add("One request through each model", requests, tables.requests(document["timelines"]))
    parts.add("How they scale", parts.draw(scaling(found, looked)))
    for block in found:
        charts = parts.draw(of_block(document, block, looked))
        content = tables.block_text(block), charts, tables.block_numbers(block)
        parts.add(describe(block.load), *content, anchor=anchors[block.load])
    parts.add("Not measured", tables.absent(document, found))
    parts.add(
        "Environment",
        f"<details><summary>Machine and settings</summary>{tables.environment(document)}</details>",
    )
    loads = set(anchors.values()) if len(anchors) > _LISTED else set()
    links = _links(heading for heading in parts.headings if heading[0] not in loads)
    if loads:
        every = _links(heading for heading in parts.headings if heading[0] in loads)
        links += f"<li><details><summary>{len(loads)} loads</summary><ul>{every}</ul></details></li>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>proact lab: what each I/O model costs</title>
<style>{asset("style.css")}</style>
</head>
<body>
<h1>What each I/O model costs</h1>
{first}
<header>
<p class="how">{tables.machine(document)}</p>
{tables.stopped(document)}
<p><button id="download" type="button">Download the raw results (JSON)</button></p>
<noscript><p class="warning">The charts need JavaScript; the tables do not.</p></noscript>
</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{"".join(parts.sections)}
</main>
<script type="application/json" id="figures">{_data(parts.figures)}</script>
<script type="application/json" id="results">{_data(document)}</script>
<script>{plotly}</script>
<script>{asset("charts.js")}</script>
<script>{asset("report.js")}</script>
</body>
</html>
"""


def _links(headings: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title in headings)


def asset(name: str, package: str = "proact.lab.report") -> str:
    """The text of a file that lies in a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _data(value: Any) -> str:
    """JSON that no HTML parser takes for the end of its element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
