"""``python -m proact.lab.choose FILE``: measure the reference that proact ships.

It takes about half an hour on a quiet machine. What FILE has already is not measured again, so that it can be
stopped and continued, and so that a new question does not ask for the old ones.
It covers the questions that people ask most; ``proact lab choose`` answers those between its loads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proact.lab.choose.question import Question
from proact.lab.choose.sources import CHOICES, job_for, slim
from proact.lab.progress import watch
from proact.lab.results import load
from proact.lab.summary import Load

if TYPE_CHECKING:
    from proact.lab.results import Document

#: Connections, and how many of them send.
_CONNECTIONS: Final = ((1, 1), (100, 100), (1000, 10), (1000, 1000))

#: What a request does, and its seconds.
_WORKS: Final = (
    ("nothing", 0.0),
    ("cpu", 1e-5),
    ("cpu", 1e-4),
    ("cpu", 1e-3),
    ("wait", 1e-3),
    ("wait", 1e-2),
    ("wait", 1e-1),
    ("file", 0.0),
    ("tls", 0.0),
    ("fanout", 0.0),
)

#: The sizes of an answer in bytes; work that takes its time is measured with the smaller one only.
_SIZES: Final = (1 << 10, 1 << 16)
_IN_BOTH_SIZES: Final = ("nothing", "file")


def questions() -> list[Question]:
    """Everything that the reference measures."""
    return [
        Question(many, active, work, seconds, size)
        for work, seconds in _WORKS
        for size in (_SIZES if work in _IN_BOTH_SIZES else _SIZES[:1])
        for many, active in _CONNECTIONS
    ]


def measure(path: str) -> int:
    """Measure question after question into one file; return the exit code."""
    whole: Document | None = load(path) if Path(path).exists() else None
    for asked in questions():
        if whole is not None and _load(asked) in map(Load.of, whole["cells"]):
            continue
        job = job_for(asked, CHOICES)
        document = job.begin()
        with watch() as progress:
            job.measure(document, progress)
        if whole is None:
            whole = document
        else:
            whole["cells"] += document["cells"]
        Path(path).write_text(json.dumps(slim(whole), separators=(",", ":")), encoding="utf-8")
    return 0


def _load(asked: Question) -> Load:
    return Load(asked.workload, asked.connections, asked.active, asked.size, None)


if __name__ == "__main__":
    sys.exit(measure(*sys.argv[1:]))
