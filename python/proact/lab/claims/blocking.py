"""Claims about what blocks a process: waiting for data, and copying it. Judged by timelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from proact.lab.claims.intervals import difference
from proact.lab.claims.trial import (
    FEW,
    OPEN,
    UNP,
    Evidence,
    Finding,
    MissingError,
    Need,
    Part,
    Trial,
    decided,
    echo,
    of_each,
    of_kind,
    over_requests,
)
from proact.lab.registry import Kind
from proact.lab.spread import Spread
from proact.lab.timeline import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proact.lab.results import Phases, Timeline, Verdict

#: Two message sizes in bytes, nearly nothing and 1,024 times as much: the difference must show the copy.
SMALL: Final = 64
LARGE: Final = 64 * 1024

#: If a model slept for this share of its sleep in one kind of call, it waits there.
MOSTLY: Final = 0.95

#: Copying the larger one takes at least so much longer, in µs: no memory moves more than 64 bytes a
#: nanosecond. Calls that take so much longer contain the copy, and calls that take less do not.
FASTEST_COPY: Final = 1.0

_PLAIN: Final = ("select", "poll", "epoll")


def blocked_in_select(evidence: Evidence) -> Finding:
    """Find the calls in which multiplexing sleeps."""

    def judge(model: str) -> Part:
        (timeline, *_) = evidence.timelines(SMALL, model=model)
        asking, moving = _slept(timeline, "waits"), _slept(timeline, "moves")
        said = f"{model} {asking} of it in the call that waits, {moving} in those that move data"
        return {model: decided(asking, MOSTLY)}, said, {model: {"waiting": asking, "receiving": moving}}

    return of_each(_PLAIN, judge, "Where it sleeps, as a share of all sleep: {}.", mostly=MOSTLY)


def _slept(timeline: Timeline, role: str) -> Spread:
    """The share of its sleep that was in calls of a role, over all requests. Raises MissingError."""
    return Spread.of(over_requests(timeline, lambda one: _share_slept(one, role)))


def _share_slept(one: Phases, role: str) -> float:
    """The share of a request's sleep that was in calls of a role. Raises MissingError."""
    slept = one.get("slept")
    if slept is None:
        raise MissingError("these results do not say where each request slept")
    whole = sum(slept.values())
    if not whole:
        raise MissingError("a request slept in no call")
    return slept.get(role, 0.0) / whole


def copying_blocks(evidence: Evidence, kind: str) -> Finding:
    """Whether the calls of a kind take longer if there is more to copy."""

    def judge(both: tuple[str, Timeline, Timeline]) -> Part:
        model, small, large = both
        longer = _longer(small, large, "copying")
        said = f"{model}'s calls take {longer} µs longer for 64 KiB than for {SMALL} B"
        return {model: decided(longer, FASTEST_COPY)}, said, {model: {"longer_us": longer}}

    return of_each(_both_sizes(evidence, kind), judge, "{}.", fastest_copy_us=FASTEST_COPY)


def asynchronous_never_blocks(evidence: Evidence) -> Finding:
    """Whether a thread waits for each connection, and whose thread copies.

    A loop's sleep in io_uring_enter is no answer: it waits for any of its operations, as an idle server
    must. What tells is whether fewer threads than connections wait for all of them, and whether the calls
    for one connection sleep. Nor is it an answer that the calls are short, if the copy was seen nowhere.
    """

    def judge(both: tuple[str, Timeline, Timeline]) -> Part:
        model, small, large = both
        alone = _slept(small, "moves")
        longer, beside = _longer(small, large, "copying"), _longer(small, large, "others")
        occupied = evidence.occupied(model, echo(FEW))
        threads = Spread.of([float(each["threads"] - each["kernel_threads"]) for each in occupied])
        cases = {
            f"waiting of {model}": _neither_blocks(
                decided(alone, 1 - MOSTLY), decided(threads, FEW + 1, FEW)
            ),
            f"copying of {model}": _copies_elsewhere(longer, beside),
        }
        said = (
            f"{model} waits {alone} of its time for one connection alone, serving {FEW} with "
            f"{threads.median:.0f} thread{'s' if threads.median != 1 else ''}; for 64 KiB its calls take "
            f"{longer} µs longer than for {SMALL} B, and threads beside it {beside} µs"
        )
        numbers = {"waiting_for_one": alone, "threads": threads, "longer_us": longer, "beside_us": beside}
        return cases, said, {model: numbers}

    both = _both_sizes(evidence, Kind.ASYNCHRONOUS)
    return of_each(both, judge, "{}.", mostly=MOSTLY, fastest_copy_us=FASTEST_COPY)


def _neither_blocks(*blocks: Verdict) -> Verdict:
    """Supported if each of them is contradicted, contradicted if one is supported."""
    if "supported" in blocks:
        return "contradicted"
    return "supported" if set(blocks) == {"contradicted"} else OPEN


def _copies_elsewhere(calls: Spread, beside: Spread) -> Verdict:
    """Whether threads beside the program's copy, and not its calls. The copy has to be seen somewhere."""
    in_calls, elsewhere = (decided(each, FASTEST_COPY) for each in (calls, beside))
    if in_calls == "supported":
        return "contradicted"
    return "supported" if (in_calls, elsewhere) == ("contradicted", "supported") else OPEN


def _both_sizes(evidence: Evidence, kind: str) -> Iterable[tuple[str, Timeline, Timeline]]:
    """The models of a kind that have timelines of both sizes."""
    small = {each["model"]: each for each in evidence.timelines(SMALL, kind=kind)}
    large = {each["model"]: each for each in evidence.timelines(LARGE, kind=kind)}
    both = [(model, small[model], large[model]) for model in small if model in large]
    if not both:
        raise MissingError(f"no model of kind {kind} has timelines of both sizes")
    return both


def _longer(small: Timeline, large: Timeline, what: Literal["copying", "others"]) -> Spread:
    """The additional CPU time for the large message, in µs: of the calls that move data, or of others."""
    return difference(*(over_requests(each, lambda one: one.get(what, 0.0)) for each in (large, small)))


def _plans(models: Iterable[str], *sizes: int) -> tuple[Plan, ...]:
    return tuple(Plan(model, size=size) for model in models for size in sizes)


def _copying_trial(name: str, kind: str, figure: str) -> Trial:
    return Trial(
        name,
        f"{kind[0].upper()}{kind[1:]} I/O still blocks while it copies.",
        f"{UNP}, {figure} and 6.6",
        lambda evidence: copying_blocks(evidence, kind),
        plans=_plans(of_kind(kind), SMALL, LARGE),
    )


BLOCKED_IN_SELECT: Final = Trial(
    "blocked-in-select",
    "Under multiplexing the process is blocked in select (poll, epoll_wait), and not in recv.",
    f"{UNP}, fig. 6.3",
    blocked_in_select,
    plans=_plans(_PLAIN, SMALL),
)

NONBLOCKING_COPIES: Final = _copying_trial("nonblocking-copies", Kind.NONBLOCKING, "fig. 6.2")

SIGNAL_COPIES: Final = _copying_trial("signal-copies", "signal-driven", "fig. 6.4")

ASYNCHRONOUS: Final = Trial(
    "asynchronous",
    "Asynchronous I/O blocks in neither phase: not while it waits for data, not while it copies.",
    f"{UNP}, fig. 6.5",
    asynchronous_never_blocks,
    tuple(Need(model, echo(FEW)) for model in of_kind(Kind.ASYNCHRONOUS)),
    _plans(of_kind(Kind.ASYNCHRONOUS), SMALL, LARGE),
)
