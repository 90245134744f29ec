"""``proact lab claims``: checks what was asked for; ``proact.lab.claims`` measures, judges and draws."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from proact.cli.error import CommandError
from proact.cli.lab import Duration, Html, Json, Repeat, check_files, write
from proact.cli.stopping import stoppable
from proact.lab.asked import chosen, seconds
from proact.lab.claims import TRIALS
from proact.lab.claims.measure import DURATION, REPEAT, measure
from proact.lab.claims.view import render_claims
from proact.lab.progress import watch
from proact.lab.summary import failed
from proact.lab.table import console


def claims(
    names: Annotated[
        str, typer.Option("--claims", metavar="NAME,...", help=f"Of: {', '.join(TRIALS)}.")
    ] = "all",
    duration: Duration = DURATION,
    repeat: Repeat = REPEAT,
    json_file: Json = None,
    html_file: Html = None,
) -> int:
    """\b
    Examples:
      proact lab claims
      proact lab claims --claims two-calls,blocked-in-select
      proact lab claims --repeat 9 --duration 1 --html claims.html

    What textbooks say of I/O models, each claim tested with numbers measured now, on this machine: supported,
    contradicted, or it depends (and on what). `proact lab report` draws all that was measured for them. Exit
    code 0 whatever the verdicts are, 1 if something failed to run.
    """
    trials = [TRIALS[name] for name in chosen("claim", names, TRIALS)]
    seconds("--duration", duration, least=0.01)
    if repeat < 1:
        raise CommandError(f"--repeat is {repeat}: it must be 1 or more")
    check_files(json_file, None, html_file)
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    with stoppable(), watch() as progress:
        document, complete = measure(trials, progress, duration=duration, repeat=repeat)
    if "-" not in (json_file, html_file):
        console().print(render_claims(document["claims"]))
    write(document, json_file, None, html_file)
    return 1 if failed(document) or not complete else 0
