"""``proact lab claims``: checks the arguments; ``proact.lab.claims`` measures, judges and draws."""

from __future__ import annotations

from typing import Annotated

import typer

from proact.cli.lab import Duration, Html, Json, Repeat, carry_out
from proact.lab.asked import chosen
from proact.lab.claims import TRIALS
from proact.lab.claims.view import render_claims
from proact.lab.job import CLAIM_DURATION, CLAIM_REPEAT, of_claims


def claims(
    names: Annotated[
        str, typer.Option("--claims", metavar="NAME,...", help=f"Some of: {', '.join(TRIALS)}.")
    ] = "all",
    duration: Duration = CLAIM_DURATION,
    repeat: Repeat = CLAIM_REPEAT,
    json_file: Json = None,
    html_file: Html = None,
) -> int:
    """\b
    Examples:
      proact lab claims
      proact lab claims --claims two-calls,blocked-in-select
      proact lab claims --repeat 9 --duration 1 --html claims.html

    What textbooks say about I/O models, each claim tested with numbers measured now, on this machine:
    supported, contradicted, or it depends (and on what). `proact lab report` draws all that was measured for
    them. Exit code 0 whatever the verdicts are, 1 if something failed to run.
    """
    trials = [TRIALS[name] for name in chosen("claim", names, TRIALS)]
    job = of_claims(trials, duration=duration, repeat=repeat)
    return carry_out(
        job, json_file, None, html_file, lambda document, width: render_claims(document["claims"], width)
    )
