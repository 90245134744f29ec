"""Everything in a run's results, for a terminal: cells, timelines and claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from proact.lab.claims.view import render_claims
from proact.lab.table import WIDTH, render
from proact.lab.timeline_view import render_timelines

if TYPE_CHECKING:
    from proact.lab.results import Document


def render_all(document: Document, width: int = WIDTH) -> RenderableType:
    """The machine, then the parts that the run has."""
    parts: list[RenderableType] = [render(document, width)]
    if document["timelines"]:
        parts += ["", render_timelines(document["timelines"], width)]
    for model, reason in document["settings"].get("no_timeline", {}).items():
        parts.append(Text(f"{model}: no timeline, {reason}", style="yellow"))
    if document["claims"]:
        parts += ["", render_claims(document["claims"], width)]
    return Group(*parts)
