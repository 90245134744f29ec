"""The parts of a claim: its text, the measurements that it needs, and its judge.

A judge sees only ``Evidence``, the numbers of one document. It decides single cases (a model, a
number of connections), and ``conclude`` makes one verdict of them. If a number is missing, it raises
MissingError, which makes the claim "not measured". An interval that leaves a case open does that, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proact.lab.measure import Cell
from proact.lab.registry import MODELS
from proact.lab.summary import QUIET, Load, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Claim, Document, Measured, Phases, Split, Timeline, Verdict
    from proact.lab.summary import Spread
    from proact.lab.timeline import Plan

#: Numbers of connections that are few, and many, to a server with a thread for each.
ONE: Final = 1
FEW: Final = 4
MANY: Final = 100

#: Undisturbed repeats that suffice for an interval.
ENOUGH: Final = 3

#: The verdict on a case that its interval leaves open.
OPEN: Final = "not measured"

UNP: Final = "Stevens, UNIX Network Programming, vol. 1, 3rd ed., ch. 6.2"


class MissingError(Exception):
    """A number that the document does not hold, and why."""


@dataclass(frozen=True, slots=True)
class Need:
    """A cell that a judge looks at: measured several times for an interval, with a probing pass for its
    split.
    """

    model: str
    load: Load
    intervals: bool = False
    split: bool = False

    def cells(self, repeat: int) -> list[Cell]:
        """The measurements that a claim needs."""
        times = repeat if self.intervals else 1
        load = self.load
        return [
            Cell(self.model, load.workload, load.connections, load.active, load.size, load.rate, number)
            for number in range(times)
        ]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a judge. ``because`` is made from the numbers in ``evidence``."""

    verdict: Verdict
    because: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """A textbook's claim as a test."""

    name: str
    text: str
    source: str
    judge: Callable[[Evidence], Finding]
    needs: tuple[Need, ...] = ()
    plans: tuple[Plan, ...] = field(default=())


def echo(connections: int, active: int | None = None, rate: float | None = None) -> Load:
    """A load of echoes of 1 KiB; ``active``: how many of the connections send (None: all)."""
    return Load("echo", connections, active or connections, 1024, rate)


def of_kind(kind: str) -> list[str]:
    """The models of a kind that the laboratory knows."""
    return [name for name, model in MODELS.items() if model.kind == kind]


class Evidence:
    """The numbers of a document, by model and load."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def measured(self, model: str, load: Load) -> list[Measured]:
        """Every repeat of a cell. Raises MissingError."""
        cells = [c for c in self._document["cells"] if c["model"] == model and Load.of(c) == load]
        found = [cell["measured"] for cell in cells if cell["measured"] is not None]
        if not found:
            reason = next((cell["reason"] for cell in cells if cell["reason"]), "not in these results")
            raise MissingError(f"{model}: {reason}")
        return found

    def values(self, model: str, load: Load, value: Callable[[Measured], float]) -> list[float]:
        """A number of each repeat of a cell. Raises MissingError; a single repeat has no interval.

        Leaves out the repeats during which other programs kept the machine busy, if enough remain.
        """
        found = self.measured(model, load)
        if len(found) < 2:
            raise MissingError(f"{model} was measured only once, so there is no interval")
        quiet = [each for each in found if each["others_cpu"] <= QUIET]
        return [value(each) for each in (quiet if len(quiet) >= ENOUGH else found)]

    def split(self, model: str, load: Load) -> Split:
        """The split of a cell's time. Raises MissingError."""
        found = self.measured(model, load)
        split = next((each["split"] for each in found if each["split"]), None)
        if split is None or not split["messages"]:
            raise MissingError(f"{model}: {found[0]['unsplit'] or 'not split'}")
        return split

    def timelines(self, size: int, *, model: str | None = None, kind: str | None = None) -> list[Timeline]:
        """The timelines of a model or a kind at one size. Raises MissingError if there is none."""
        found = [
            timeline
            for timeline in self._document["timelines"]
            if timeline["size"] == size
            and model in (None, timeline["model"])
            and kind in (None, timeline["kind"])
        ]
        if not found:
            absent = self._document["settings"].get("no_timeline", {})
            raise MissingError(absent.get(model, f"no timeline of {model or f'a model of kind {kind}'}"))
        return found


def rate(measured: Measured) -> float:
    """Messages per second."""
    return measured["messages"] / measured["seconds"]


def p50(measured: Measured) -> float:
    """The median latency, in µs."""
    return measured["latency"]["percentiles"]["p50"] / 1e3


def cpu_us(measured: Measured) -> float:
    """CPU time of the server per message, in µs."""
    return cpu_seconds(measured) * 1e6 / measured["messages"]


def over_requests(timeline: Timeline, value: Callable[[Phases], float]) -> list[float]:
    """A number of each request of a timeline. Raises MissingError if only one was taken."""
    every = timeline.get("requests", [])
    if len(every) < 2:
        raise MissingError(f"{timeline['model']}: one request gives no interval")
    return [value(each) for each in every]


def shown(spread: Spread) -> str:
    """``1.23 (1.10 to 1.40)``."""
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def raw(spread: Spread) -> dict[str, float]:
    """A spread as evidence."""
    return asdict(spread)


def decided(interval: Spread, least: float, most: float) -> Verdict:
    """Supported if the whole interval is ``least`` or more, contradicted if all of it is ``most`` or less."""
    if interval.low >= least:
        return "supported"
    return "contradicted" if interval.high <= most else OPEN


def turned(verdict: Verdict) -> Verdict:
    """The verdict on the opposite claim."""
    opposites: dict[Verdict, Verdict] = {"supported": "contradicted", "contradicted": "supported"}
    return opposites.get(verdict, verdict)


def conclude(cases: dict[str, Verdict], because: str, evidence: dict[str, Any]) -> Finding:
    """One verdict on several cases: the common one if they agree, "depends" if they contradict each other.

    If no case contradicts the others and an interval leaves one open, the measurements do not decide the
    measured.
    """
    if not cases:
        raise MissingError("nothing was measured for it")
    found = set(cases.values())
    verdict: Verdict = OPEN
    if len(found) == 1:
        verdict = found.pop()
    elif {"supported", "contradicted"} <= found:
        verdict = "depends"
    grouped = {
        each: ", ".join(name for name, case in cases.items() if case == each)
        for each in ("supported", "contradicted", OPEN)
    }
    if len(cases) > 1 or verdict == OPEN:
        named = {"supported": "Supported by", "contradicted": "Contradicted by", OPEN: "Left open by"}
        because += "".join(f" {named[each]}: {names}." for each, names in grouped.items() if names)
    return Finding(verdict, because, evidence | {"cases": cases})


def judged(trial: Trial, document: Document) -> Claim:
    """The verdict of a document on a claim."""
    try:
        found = trial.judge(Evidence(document))
    except MissingError as missing:
        found = Finding("not measured", str(missing), {})
    return {
        "name": trial.name,
        "text": trial.text,
        "source": trial.source,
        "verdict": found.verdict,
        "because": found.because,
        "evidence": found.evidence,
    }
