"""``proact lab choose``: asks the three questions; ``proact.lab.choose`` answers them."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from proact.cli.error import CommandError
from proact.cli.lab import Html, Models, check_files, read_results, write
from proact.cli.stopping import stoppable
from proact.lab.asked import chosen
from proact.lab.choose.answer import Answer, answer
from proact.lab.choose.question import DOES, Question, question
from proact.lab.choose.sources import CHOICES, job_for, machine, shipped
from proact.lab.choose.view import render_answer
from proact.lab.progress import watch
from proact.lab.registry import MODELS
from proact.lab.report.page import to_html
from proact.lab.table import console

if TYPE_CHECKING:
    from proact.lab.results import Document

#: The models that are measured if nobody says which.
_USUAL = ",".join(CHOICES)

#: The exit code if what was measured decides nothing.
UNDECIDED = 3


def choose(
    connections: Annotated[
        str | None, typer.Option(metavar="N", help="How many connections are open.")
    ] = None,
    active: Annotated[
        str | None, typer.Option(metavar="N", help="How many of them send at once (default: all).")
    ] = None,
    does: Annotated[str | None, typer.Option(metavar="WHAT", help=f"What a request does: {DOES}.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="BYTES", help="How large an answer is (default: 1K).")
    ] = None,
    results: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="Results of `lab run --json` to choose by.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure now, about a minute.")] = False,
    models: Models = _USUAL,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, no table.")] = False,
    html_file: Html = None,
) -> int:
    """\b
    Examples:
      proact lab choose
      proact lab choose --connections 1000 --active 10 --does nothing
      proact lab choose --connections 200 --does wait:10ms --size 4K --measure
      proact lab choose --connections 100 --does cpu:50us --from mine.json --json

    Which I/O model to use, and why: one sentence with figures and their intervals, from measured results
    only. They come from --from, from --measure, or from the reference that proact ships. What lies between
    two measured loads is answered only if the same models win at both, and the answer says so. Without
    options it asks, in a terminal. Exit code 0 with a recommendation, 3 if what was measured decides nothing,
    1 if a measurement failed.
    """
    if measure and results is not None:
        raise CommandError("--measure measures now, and --from reads a file: choose one of them")
    named = chosen("model", models, MODELS)
    if models != _USUAL and not measure:
        raise CommandError("--models names what --measure is to measure: without it they have no effect")
    asked = _ask(connections, active, does, size)
    check_files("-" if as_json else None, None, html_file, source=results)
    code, document, source = 0, None, ""
    if measure:
        code, document = _measure(asked, named)
        source = f"measured now on {machine(document)}"
    elif results is not None:
        document = read_results(results)
        source = f"{results} ({machine(document)}); proact lab report {results} draws all of it"
    else:
        document = shipped()
        if document is not None:
            source = f"the reference that proact ships ({machine(document)}); your machine differs"
    found = _answer(asked, document)
    if not found.models and not measure and _is_asking():
        show_answer(found, source or "none", as_json=False)
        job = job_for(asked, CHOICES)
        of_cell = job.settings
        seconds = sum(of_cell.seconds(split=False, counted=of_cell.counts(cell)) for cell in job.cells)
        if typer.confirm(f"Measure it now, about {seconds:.0f} s?", default=True, err=True):
            code, document = _measure(asked, named)
            found, source = _answer(asked, document), f"measured now on {machine(document)}"
        else:
            return UNDECIDED
    if html_file != "-":
        show_answer(found, source or "none", as_json=as_json)
    if html_file is not None:
        if document is None:
            raise CommandError("there are no results to draw a report of: --measure makes some", exit_code=1)
        write(html_file, "the report", to_html(document))
    return code or (0 if found.models else UNDECIDED)


def _answer(asked: Question, document: Document | None) -> Answer:
    if document is not None:
        return answer(asked, document)
    sentence = f"No recommendation for {asked.words}: this copy of proact ships no reference results."
    return Answer(asked, sentence, (), (), interpolated=False, unknown={})


def show_answer(found: Answer, source: str, *, as_json: bool) -> None:
    """The answer on stdout."""
    if as_json:
        json.dump(found.as_object() | {"source": source}, sys.stdout, indent=1)
        print()
        return
    out = console()
    out.print(render_answer(found, source, out.width))


def _ask(connections: str | None, active: str | None, does: str | None, size: str | None) -> Question:
    """The question of the options; in a terminal, ask for what is missing if nothing was given."""
    if connections is None and does is None and active is None and size is None and _is_asking():
        connections = typer.prompt("How many connections are open", default="100", err=True)
        active = typer.prompt("How many of them send at once", default="all", err=True)
        does = typer.prompt(f"What does a request do ({DOES})", default="nothing", err=True)
        size = typer.prompt("How large is an answer", default="1K", err=True)
        active = "" if active == "all" else active
    if connections is None:
        raise CommandError("how many connections? --connections N, as in: " + _EXAMPLE)
    return question(connections, active or "", does or "nothing", size or "")


_EXAMPLE = "proact lab choose --connections 1000 --active 10 --does wait:10ms"


def _is_asking() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _measure(asked: Question, models: tuple[str, ...]) -> tuple[int, Document]:
    """Measure what answers the question; the exit code and the results."""
    os.environ.pop("PROACT_ENGINE", None)  # each model names its own engine
    job = job_for(asked, models)
    document = job.begin()
    with stoppable(), watch() as progress:
        complete = job.measure(document, progress)
    return 0 if complete else 1, document
