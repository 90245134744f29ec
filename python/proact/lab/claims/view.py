"""Claims in a terminal: each with its verdict, and the sentence that says why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.claims.trial import circumstances
from proact.lab.table import WIDTH, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proact.lab.results import Claim, Verdict

_STYLES: Final[dict[Verdict, str]] = {
    "supported": "green",
    "contradicted": "red",
    "depends": "yellow",
    "not measured": "dim",
}


#: In fewer columns than this, a claim's name stands above it.
_ROOMY: Final = 70


def render_claims(claims: Sequence[Claim], width: int = WIDTH) -> RenderableType:
    """How many verdicts of each kind, then each claim with its verdict, its reason, and its source below."""
    heading = Text("What the books say, and what was measured here", style="bold")
    parts: list[RenderableType] = [heading, tally(claims), ""]
    if width < _ROOMY:
        for claim in claims:
            parts += [_name(claim, ", "), _about(claim), ""]
        return Group(*parts)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(width=19, no_wrap=True)
    table.add_column(overflow="fold")
    for claim in claims:
        table.add_row(_name(claim, "\n"), _about(claim))
    return Group(*parts, table)


def tally(claims: Sequence[Claim]) -> str:
    """How many there are of each verdict: ``15 claims: 9 supported, 2 contradicted, 4 not measured``."""
    found = Counter(claim["verdict"] for claim in claims)
    words = {
        **{verdict: verdict for verdict in _STYLES},
        "depends": "depend" if found["depends"] > 1 else "depends",
    }
    each = ", ".join(f"{found[verdict]} {word}" for verdict, word in words.items() if found[verdict])
    return f"{counted(len(claims), 'claim')}: {each}"


def _name(claim: Claim, between: str) -> Text:
    return Text(f"{claim['name']}{between}").append(claim["verdict"], style=_STYLES[claim["verdict"]])


def _about(claim: Claim) -> Text:
    about = Text(claim["text"], style="bold")
    about.append(f"\n{claim['because']}", style="not bold")
    about.append(f"\n{claim['source']}", style="not bold dim")
    if conditions := claim.get("conditions"):
        about.append(f"\n{circumstances(conditions)}", style="not bold dim")
    return about
