"""Claims about what blocks a process: waiting for data, and copying it. Judged by timelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proact.lab.claims.intervals import difference
from proact.lab.claims.trial import (
    FEW,
    UNP,
    Evidence,
    Finding,
    MissingError,
    Need,
    Trial,
    conclude,
    decided,
    echo,
    of_kind,
    over_requests,
    raw,
    shown,
    turned,
)
from proact.lab.phases import waiting_by_role
from proact.lab.registry import Kind
from proact.lab.timeline import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proact.lab.results import Timeline, Verdict
    from proact.lab.summary import Spread

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
    found: dict[str, Any] = {}
    cases: dict[str, Verdict] = {}
    for model in _PLAIN:
        (timeline, *_) = evidence.timelines(SMALL, model=model)
        slept = waiting_by_role(timeline)
        whole = sum(slept.values())
        if not whole:
            raise MissingError(f"{model} slept in no call")
        asking, moving = slept.get("waits", 0.0), slept.get("moves", 0.0)
        cases[model] = "supported" if asking >= MOSTLY * whole else "contradicted"
        found[model] = {"waiting_us": asking, "receiving_us": moving}
    slept_in = (
        f"{model} sleeps {each['waiting_us']:,.0f} µs in the call that waits and "
        f"{each['receiving_us']:,.0f} µs in those that move data"
        for model, each in found.items()
    )
    return conclude(cases, f"{'; '.join(slept_in)}.", found | {"mostly": MOSTLY})


def copying_blocks(evidence: Evidence, kind: str) -> Finding:
    """Whether the calls of a kind take longer if there is more to copy."""
    found: dict[str, Any] = {}
    cases: dict[str, Verdict] = {}
    parts = []
    for model, small, large in _both_sizes(evidence, kind):
        longer = _longer(small, large)
        cases[model] = decided(longer, FASTEST_COPY, FASTEST_COPY)
        parts.append(f"{model}'s calls take {shown(longer)} µs longer for 64 KiB than for {SMALL} B")
        found[model] = {"longer_us": raw(longer)}
    return conclude(cases, f"{'; '.join(parts)}.", found | {"fastest_copy_us": FASTEST_COPY})


def asynchronous_never_blocks(evidence: Evidence) -> Finding:
    """What asynchronous models wait for, whether that blocks other connections, and which side copies."""
    found: dict[str, Any] = {}
    cases: dict[str, Verdict] = {}
    parts = []
    for model, small, large in _both_sizes(evidence, Kind.ASYNCHRONOUS):
        slept = waiting_by_role(small)
        alone = slept.get("moves", 0.0) / (sum(slept.values()) or 1.0)
        longer = _longer(small, large)
        try:
            measured = evidence.measured(model, echo(FEW))
        except MissingError as missing:
            found[model] = str(missing)
            continue
        occupied = [each["occupied"] for each in measured if each["occupied"]]
        threads = max((each["threads"] - each["kernel_threads"] for each in occupied), default=0)
        # A model that sleeps for one connection, or has a thread for each, is blocked while it waits.
        blocks = alone > 1 - MOSTLY or threads > FEW
        cases[f"waiting of {model}"] = "contradicted" if blocks else "supported"
        cases[f"copying of {model}"] = turned(decided(longer, FASTEST_COPY, FASTEST_COPY))
        parts.append(
            f"{model} waits {alone:.0%} of its time for one connection alone, serving {FEW} with {threads} "
            f"thread{'s' if threads != 1 else ''}; its calls take {shown(longer)} µs longer for 64 KiB than "
            f"for {SMALL} B, and others {large['others']:.1f} µs"
        )
        found[model] = {
            "waiting_for_one": alone,
            "threads": threads,
            "longer_us": raw(longer),
            "others_us": large["others"],
        }
    return conclude(
        cases, f"{'; '.join(parts)}.", found | {"mostly": MOSTLY, "fastest_copy_us": FASTEST_COPY}
    )


def _both_sizes(evidence: Evidence, kind: str) -> Iterable[tuple[str, Timeline, Timeline]]:
    """The models of a kind that have timelines of both sizes."""
    small = {each["model"]: each for each in evidence.timelines(SMALL, kind=kind)}
    large = {each["model"]: each for each in evidence.timelines(LARGE, kind=kind)}
    both = [(model, small[model], large[model]) for model in small if model in large]
    if not both:
        raise MissingError(f"no model of kind {kind} has timelines of both sizes")
    return both


def _longer(small: Timeline, large: Timeline) -> Spread:
    """The additional CPU time of the calls that move data for the large message, in µs."""
    return difference(*(over_requests(each, lambda one: one["copying"]) for each in (large, small)))


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
