"""The parts of a claim: its text, the measurements that it needs, and its judge.

A judge sees only ``Evidence``, the numbers of one document. It decides single cases (a model, a
number of connections), and ``conclude`` makes one verdict of them; ``of_each`` does both for a judge that
asks the same of several models. If a number is missing, MissingError is raised, which makes the claim "not
measured". An interval that leaves a case open does that, too, and so does a machine that was busy with
something else: a verdict is never given from what that disturbed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proact.lab.disturbance import is_disturbed, named
from proact.lab.files import FILES
from proact.lab.measure import Cell
from proact.lab.registry import MODELS
from proact.lab.results import Verdict
from proact.lab.spread import Spread
from proact.lab.summary import Load, cpu_seconds
from proact.lab.table import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proact.lab.results import (
        Claim,
        Conditions,
        Disturbance,
        Document,
        Measured,
        Occupied,
        Phases,
        Split,
        Timeline,
    )
    from proact.lab.timeline import Plan

#: What is found of one model, or of one pair: its cases, a part of the sentence, the numbers.
Part = tuple[dict[str, Verdict], str, dict[str, Any]]

_T = TypeVar("_T")

#: Numbers of connections that are few, and many, to a server with a thread for each.
ONE: Final = 1
FEW: Final = 4
MANY: Final = 100

#: Undisturbed repeats that an interval needs.
ENOUGH: Final = 5

#: The verdict on a case that its interval leaves open.
OPEN: Final = "not measured"

UNP: Final = "Stevens, UNIX Network Programming, vol. 1, 3rd ed., ch. 6.2"


class MissingError(Exception):
    """A number that the document does not hold, and why."""


@dataclass(frozen=True, slots=True)
class Need:
    """A cell that a judge looks at, perhaps with a probing pass for its split."""

    model: str
    load: Load
    split: bool = False

    def cells(self, repeat: int) -> list[Cell]:
        """The measurements that a claim needs."""
        load = self.load
        return [
            Cell(self.model, load.workload, load.connections, load.active, load.size, load.rate, number)
            for number in range(repeat)
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
    """The models of a kind that the laboratory knows, without libraries that have only files."""
    return [name for name, model in MODELS.items() if model.kind == kind and "echo" in model.workloads]


class Evidence:
    """The numbers of a document, by model and load. It notes what of them was disturbed."""

    def __init__(self, document: Document) -> None:
        self._document = document
        # By the identity of what was measured, because a judge may ask for it twice.
        self._given: set[int] = set()
        self._disturbances: dict[int, Disturbance] = {}
        self.busy: str | None = None  #: why there can be no verdict: the server had not what it needs

    def measured(self, model: str, load: Load) -> list[Measured]:
        """The undisturbed repeats of a cell, or every one if too few are. Raises MissingError."""
        cells = [c for c in self._document["cells"] if c["model"] == model and Load.of(c) == load]
        found = [cell["measured"] for cell in cells if cell["measured"] is not None]
        if not found:
            reason = next((cell["reason"] for cell in cells if cell["reason"]), "not in these results")
            raise MissingError(f"{model}: {reason}")
        quiet = [each for each in found if not self._is_disturbed(each)]
        if len(quiet) < ENOUGH and len(quiet) < len(found):
            self._hopeless(f"{model} at {load.connections}", len(quiet))
            quiet = found
        if len(quiet) < ENOUGH:
            times = f"{len(quiet)} time{'s' if len(quiet) > 1 else ''}"
            raise MissingError(f"{model} was measured only {times}: an interval needs {ENOUGH}")
        self._given.update(map(id, quiet))
        return quiet

    def values(self, model: str, load: Load, value: Callable[[Measured], float]) -> list[float]:
        """A number of each repeat of a cell. Raises MissingError."""
        if value in _OF_BOTH_ENDS and load.workload not in FILES:
            self.needs_cores()
        return [value(each) for each in self.measured(model, load)]

    def needs_cores(self) -> None:
        """There is no verdict if server and load share a core.

        Rates and latencies are those of both then, and what is ready at once is what the load could send in
        its turn.
        """
        if not self._document["settings"]["pinned"]:
            shared = "rates, latencies and what is ready at once are those of both"
            self.busy = self.busy or f"Server and load share a core, so {shared}"

    def over_splits(self, model: str, load: Load, value: Callable[[Split], _T]) -> list[_T]:
        """A number of the split of each repeat of a cell. Raises MissingError."""
        found = self.measured(model, load)
        splits = [each["split"] for each in found if each["split"] and each["split"]["messages"]]
        if len(splits) < ENOUGH:
            reasons = (each["unsplit"] for each in found if each["unsplit"])
            raise MissingError(f"{model}: {next(reasons, 'not split')}")
        return [value(each) for each in splits]

    def occupied(self, model: str, load: Load) -> list[Occupied]:
        """The threads and the memory of each repeat in which they were read. Raises MissingError."""
        every = [each["occupied"] for each in self.measured(model, load)]
        if not (found := [each for each in every if each and each["threads"]]):
            raise MissingError(f"{model}: its threads and its memory were not read")
        return found

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
        for timeline in found:
            if self._is_disturbed(timeline):
                self._hopeless(f"the timeline of {timeline['model']}", 0)
        self._given.update(map(id, found))
        return found

    def conditions(self) -> Conditions:
        """Under which conditions the numbers were measured that the judge was given."""
        return {
            "cores": self._document["environment"]["cores"],
            "pinned": self._document["settings"]["pinned"],
            "measured": len(self._given),
            "disturbed": len(self._disturbances),
            "worst": max(self._disturbances.values(), key=lambda each: each["cores"], default=None),
        }

    def _is_disturbed(self, measured: Measured | Timeline) -> bool:
        disturbance = measured.get("disturbance")
        if disturbance is None or not is_disturbed(disturbance):
            return False
        self._disturbances[id(measured)] = disturbance
        return True

    def _hopeless(self, what: str, undisturbed: int) -> None:
        if self.busy is None:
            times = f"undisturbed only {undisturbed} of {ENOUGH} times" if undisturbed else "always disturbed"
            self.busy = (
                f"The machine was busy: {what} was {times}, by {named(list(self._disturbances.values())[-1])}"
            )


def rate(measured: Measured) -> float:
    """Messages per second."""
    return measured["messages"] / measured["seconds"]


def p50(measured: Measured) -> float:
    """The median latency, in µs."""
    return measured["latency"]["percentiles"]["p50"] / 1e3


def p99(measured: Measured) -> float:
    """The 99th percentile of latency, in µs."""
    return measured["latency"]["percentiles"]["p99"] / 1e3


#: What the load's end has a share in.
_OF_BOTH_ENDS: Final = (rate, p50, p99)


def cpu_us(measured: Measured) -> float:
    """CPU time of the server per message, in µs."""
    return cpu_seconds(measured) * 1e6 / measured["messages"]


def over_requests(timeline: Timeline, value: Callable[[Phases], float]) -> list[float]:
    """A number of each request of a timeline. Raises MissingError if only one was taken."""
    every = timeline.get("requests", [])
    if len(every) < 2:
        raise MissingError(f"{timeline['model']}: one request gives no interval")
    return [value(each) for each in every]


def within(interval: Spread, middle: float, tolerance: float) -> Verdict:
    """Supported if the whole interval is as close to ``middle``, contradicted if none of it is."""
    low, high = middle - tolerance, middle + tolerance
    if low <= interval.low and interval.high <= high:
        return "supported"
    return "contradicted" if interval.high < low or interval.low > high else OPEN


def decided(interval: Spread, least: float, most: float | None = None) -> Verdict:
    """Supported if the whole interval is ``least`` or more, contradicted if all of it is ``most`` or less.

    ``most`` is ``least`` unless it is given.
    """
    if interval.low >= least:
        return "supported"
    return "contradicted" if interval.high <= (least if most is None else most) else OPEN


def turned(verdict: Verdict) -> Verdict:
    """The verdict on the opposite claim."""
    opposites: dict[Verdict, Verdict] = {"supported": "contradicted", "contradicted": "supported"}
    return opposites.get(verdict, verdict)


def conclude(cases: dict[str, Verdict], because: str, evidence: dict[str, Any]) -> Finding:
    """One verdict on several cases: the common one if they agree, "depends" if they contradict each other.

    If an interval leaves a case open and no two others contradict each other, there is no verdict.
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
    return Finding(verdict, because, _plain(evidence | {"cases": cases}))


def _plain(value: Any) -> Any:
    """The numbers as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return asdict(value) if isinstance(value, Spread) else value


def of_each(what: Iterable[_T], judge: Callable[[_T], Part], sentence: str, **numbers: Any) -> Finding:
    """Ask the same of each, and make one verdict of all parts. What was not measured is left out, and named.

    ``sentence`` has a place for the parts of the sentence; ``numbers`` are thresholds, for the evidence.
    """
    cases: dict[str, Verdict] = {}
    evidence: dict[str, Any] = {}
    said: list[str] = []
    missing: list[str] = []
    for each in what:
        try:
            found, part, measured = judge(each)
        except MissingError as reason:
            missing.append(str(reason))
            continue
        cases |= found
        evidence |= measured
        said.append(part)
    if not cases:
        raise MissingError("; ".join(dict.fromkeys(missing)) or "nothing was measured for it")
    if missing:
        evidence["not_measured"] = missing
    return conclude(cases, sentence.format("; ".join(said)), evidence | numbers)


def judged(trial: Trial, document: Document) -> Claim:
    """The verdict of a document on a claim."""
    evidence = Evidence(document)
    try:
        found = trial.judge(evidence)
    except MissingError as missing:
        found = Finding(OPEN, str(missing), {})
    if evidence.busy is not None:
        because = f"{evidence.busy}. What was measured all the same: {found.because}"
        found = Finding(OPEN, because, found.evidence)
    return {
        "name": trial.name,
        "text": trial.text,
        "source": trial.source,
        "verdict": found.verdict,
        "because": found.because,
        "evidence": found.evidence,
        "conditions": evidence.conditions(),
    }


def circumstances(conditions: Conditions) -> str:
    """The conditions of a claim in one line."""
    cores = counted(conditions["cores"], "core")
    apart = "server and load on one each" if conditions["pinned"] else "server and load on the same"
    worst = conditions["worst"]
    by = f", at worst by {named(worst)}" if worst is not None else ""
    disturbed = f"{conditions['disturbed']} disturbed{by}" if conditions["disturbed"] else "none disturbed"
    return f"{cores}, {apart}; {counted(conditions['measured'], 'measurement')} used, {disturbed}"
