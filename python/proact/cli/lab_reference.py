"""``python -m proact.cli.lab_reference FILE``: measure the reference that proact ships.

It takes some 50 minutes on a quiet machine, the questions that people ask most first, and may be stopped: a
file that exists is gone on with, from the first question that it does not answer. A question takes about a
minute. ``proact lab choose`` answers the questions between its loads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proact.cli.stopping import StoppedError, stoppable
from proact.lab.choose.packed import read, write
from proact.lab.choose.points import around, points
from proact.lab.choose.question import Question, work_of
from proact.lab.choose.sources import CHOICES, job_for
from proact.lab.environment import cpu_model
from proact.lab.progress import watch
from proact.lab.results import ResultsError
from proact.lab.summary import Load

if TYPE_CHECKING:
    from proact.lab.results import Document

#: Connections, and how many of them send.
_CONNECTIONS: Final = ((1, 1), (100, 100), (1000, 10), (1000, 1000))

#: What a request does, its seconds, and the size of an answer in bytes.
_WORKS: Final = (
    ("nothing", 0.0, 1 << 10),
    ("nothing", 0.0, 1 << 16),
    ("cpu", 1e-5, 1 << 10),
    ("cpu", 1e-4, 1 << 10),
    ("cpu", 1e-3, 1 << 10),
    ("wait", 1e-2, 1 << 10),
    ("file", 0.0, 1 << 10),
    ("tls", 0.0, 1 << 10),
    ("fanout", 0.0, 1 << 10),
    ("wait", 1e-3, 1 << 10),
    ("file", 0.0, 1 << 16),
    ("wait", 1e-1, 1 << 10),
    ("churn", 0.0, 1 << 10),
)


def questions() -> list[Question]:
    """Everything that the reference measures."""
    return [
        Question(many, active, work, seconds, size)
        for work, seconds, size in _WORKS
        for many, active in _CONNECTIONS
    ]


def _is_measured(asked: Question, document: Document) -> bool:
    """Whether the file answers the question itself; a machine that was busy has left too few repeats."""
    found = around(asked, points(document))
    return not found.between and any(len(point.rows) > 1 for point in found.points)


def _begin_again_elsewhere(whole: Document, here: str) -> None:
    """Forget the kinds of request that lack an answer, if another machine than ``here`` measured them.

    Loads between which an answer may lie have to be of one machine. The file says which kind is of which.
    """
    of = whole["environment"].setdefault("also", {})
    for work in dict.fromkeys(asked.work for asked in questions()):
        lacks = not all(_is_measured(asked, whole) for asked in questions() if asked.work == work)
        if lacks and of.get(work, whole["environment"]["cpu"]) != here:
            whole["cells"] = [cell for cell in whole["cells"] if work_of(cell["workload"]) != work]
            of[work] = here


def measure(path: str) -> int:
    """Measure question after question into one file; return the exit code. Raises ResultsError."""
    file = Path(path)
    whole: Document | None = read(file) if file.exists() else None
    if whole is not None:
        _begin_again_elsewhere(whole, cpu_model())
    for asked in questions():
        if whole is not None and _is_measured(asked, whole):
            continue
        job = job_for(asked, CHOICES)
        document = job.begin()
        with watch() as progress:
            job.measure(document, progress)
        if whole is None:
            whole = document
        else:
            again = {Load.of(cell) for cell in document["cells"]}
            whole["cells"] = [cell for cell in whole["cells"] if Load.of(cell) not in again]
            whole["cells"] += document["cells"]
        write(whole, file)
    return 0


def main(path: str) -> int:
    """The exit code; errors are one line."""
    try:
        with stoppable():
            return measure(path)
    except (StoppedError, ResultsError, OSError) as error:
        print(f"proact: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, StoppedError) else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:  # the name of the module, and the file
        sys.exit("usage: python -m proact.cli.lab_reference FILE")
    sys.exit(main(sys.argv[1]))
