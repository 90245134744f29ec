"""Where the results for an answer come from: a file of somebody's own, the reference that is shipped, or a
measurement now.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final

from proact.lab.choose.packed import read
from proact.lab.job import Job, of_load
from proact.lab.registry import MODELS, USUAL, Family
from proact.lab.results import Document, ResultsError
from proact.lab.run import Settings
from proact.lab.summary import ENOUGH
from proact.lab.table import machine as at_a_glance

if TYPE_CHECKING:
    from proact.lab.choose.question import Question

#: The reference: results of a quiet machine, as packed.py has them. `make lab-reference`.
REFERENCE: Final = "reference.json"

#: The models that people choose from: what is measured if nobody says which.
CHOICES: Final = tuple(name for name in USUAL if MODELS[name].family != Family.CEILING)


def shipped() -> Document | None:
    """The reference of this version of proact; None if it has none that can be read."""
    file = files("proact.lab.choose").joinpath(REFERENCE)
    if not file.is_file():
        return None
    try:
        with as_file(file) as path:
            return read(path)
    except ResultsError:
        return None


def machine(document: Document) -> str:
    """Whose results these are; lab_reference.py may have measured a kind of request on another machine."""
    also = "".join(f"; {work}: {cpu}" for work, cpu in document["environment"].get("also", {}).items())
    return f"{at_a_glance(document['environment'])}, {document['started'][:10]}{also}"


def job_for(question: Question, models: tuple[str, ...] = CHOICES) -> Job:
    """The measurement that answers a question: five repeats of each model, disturbed ones once more."""
    measured, warmup = question.times
    return of_load(
        Settings(
            models=models,
            workloads=(question.workload,),
            connections=(question.connections,),
            active=(question.active,),
            sizes=(question.size,),
            duration=measured,
            warmup=warmup,
            repeat=ENOUGH,
            again=True,
        )
    )
