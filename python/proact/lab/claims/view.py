"""Claims in a terminal: each with its verdict, and the sentence that says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.claims.trial import circumstances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.results import Claim

_STYLES: Final = {
    "supported": "green",
    "contradicted": "red",
    "depends": "yellow",
    "not measured": "dim",
}


def render_claims(claims: Sequence[Claim]) -> RenderableType:
    """A line for each claim, with its reason and source below."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="dim")
    table.add_column("claim, verdict", width=19, no_wrap=True)
    table.add_column("", overflow="fold")
    for claim in claims:
        about = Text(claim["text"], style="bold")
        about.append(f"\n{claim['because']}", style="not bold").append(
            f"\n{claim['source']}", style="not bold dim"
        )
        if conditions := claim.get("conditions"):
            about.append(f"\n{circumstances(conditions)}", style="not bold dim")
        name = Text(f"{claim['name']}\n").append(claim["verdict"], style=_STYLES[claim["verdict"]])
        table.add_row(name, about)
    return Group(Text("What the books say, and what was measured here", style="bold"), "", table)
