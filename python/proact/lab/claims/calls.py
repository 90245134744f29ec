"""Claims about system calls per message: what multiplexing adds, and what coroutines hide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proact.lab.claims.intervals import difference, ratio
from proact.lab.claims.trial import (
    MANY,
    ONE,
    OPEN,
    UNP,
    Evidence,
    Finding,
    MissingError,
    Need,
    Part,
    Trial,
    conclude,
    cpu_us,
    decided,
    echo,
    of_each,
    within,
)
from proact.lab.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proact.lab.results import CallTimes, Split, Verdict

#: A number of calls per message this close to a whole number counts as the whole number.
TOLERANCE: Final = 0.15

#: If a loop's calls per message are this close to plain epoll's, they count as the same calls.
SAME: Final = 0.25

_PLAIN: Final = ("select", "poll", "epoll")

#: Loops for which programs are written as coroutines. They are compared with epoll.
_NICER: Final = ("asyncio", "gevent", "proact-epoll")


def role(call: CallTimes) -> str:
    """The role of a call. Raises MissingError for older results, which did not record it."""
    if "role" not in call:
        raise MissingError("these results do not say what each call is for")
    return call["role"]


def per_message(split: Split) -> dict[str, float]:
    """Calls per message: those that wait for readiness, that receive, that send, and all calls."""
    waits = receives = sends = 0.0
    for name, call in split["calls"].items():
        waits += call["count"] if role(call) == "waits" else 0.0
        if role(call) == "moves":
            # A call that came too early has received nothing, but it still counts as a call.
            into = name.startswith(("recv", "read", "pread"))
            receives += call["count"] if into else 0.0
            sends += 0.0 if into else call["count"]
    every = sum(call["count"] for call in split["calls"].values())
    counts = {"waits": waits, "receives": receives, "sends": sends, "all": every}
    return {name: count / split["messages"] for name, count in counts.items()}


def two_calls(evidence: Evidence) -> Finding:
    """The calls that receive one message: when it comes alone, and when many are ready at once."""

    def incoming(split: Split) -> float:
        found = per_message(split)
        return found["waits"] + found["receives"]

    one = {model: evidence.over_splits(model, echo(ONE), incoming) for model in ("blocking", *_PLAIN)}
    many = {model: evidence.over_splits(model, echo(MANY), incoming) for model in ("threads", "epoll")}
    cases = {
        f"{model} at {ONE}": within(difference(one[model], one["blocking"]), 1, TOLERANCE) for model in _PLAIN
    }
    cases[f"epoll at {MANY}"] = within(difference(many["epoll"], many["threads"]), 1, TOLERANCE)
    alone, crowd = ({model: Spread.of(each) for model, each in found.items()} for found in (one, many))
    return conclude(
        cases,
        f"At one connection blocking makes {alone['blocking']} calls to receive a message, "
        + ", ".join(f"{model} {alone[model]}" for model in _PLAIN)
        + f"; at {MANY} connections threads make {crowd['threads']} and epoll {crowd['epoll']}.",
        {"one_connection": alone, f"{MANY}_connections": crowd, "tolerance": TOLERANCE},
    )


def nicer_face(evidence: Evidence) -> Finding:
    """A loop's calls per message against plain epoll's, and its CPU time."""
    plain = _counts(evidence, "epoll")
    price = evidence.values("epoll", echo(ONE), cpu_us)

    def judge(model: str) -> Part:
        calls = _counts(evidence, model)
        dearer = ratio(evidence.values(model, echo(ONE), cpu_us), price)
        more = {name: difference(calls[name], plain[name]) for name in ("waits", "receives", "sends")}
        cases = {
            f"calls of {model}": _all_of(within(each, 0, SAME) for each in more.values()),
            f"CPU of {model}": decided(dearer, 1.0),
        }
        spreads = _spreads(calls)
        said = f"{model} {_said(spreads)}, for {dearer} times the CPU"
        return cases, said, {model: spreads | {"cpu_of_epoll": dearer}}

    medians = _spreads(plain)
    of_epoll = medians | {"cpu_us": Spread.of(price)}
    sentence = f"Per message epoll {_said(medians)}; {{}}."
    return of_each(_NICER, judge, sentence, epoll=of_epoll, same_within=SAME)


def _counts(evidence: Evidence, model: str) -> dict[str, list[float]]:
    """Calls per message of each repeat, by what they do."""
    every = evidence.over_splits(model, echo(ONE), per_message)
    return {name: [each[name] for each in every] for name in every[0]}


def _spreads(calls: dict[str, list[float]]) -> dict[str, Spread]:
    return {name: Spread.of(each) for name, each in calls.items()}


def _said(calls: dict[str, Spread]) -> str:
    parts = ", ".join(f"{name} {calls[name]}" for name in ("waits", "receives", "sends"))
    return f"{parts} of {calls['all']} calls"


def _all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Supported if all are, contradicted if one is."""
    found = set(verdicts)
    if found == {"supported"}:
        return "supported"
    return "contradicted" if "contradicted" in found else OPEN


TWO_CALLS: Final = Trial(
    "two-calls",
    "To receive a message, multiplexing makes two calls where blocking I/O makes one.",
    f"{UNP}, fig. 6.3",
    two_calls,
    (
        *(Need(model, echo(ONE), split=True) for model in ("blocking", *_PLAIN)),
        *(Need(model, echo(MANY), split=True) for model in ("threads", "epoll")),
    ),
)

NICER_FACE: Final = Trial(
    "nicer-face",
    "What coroutines run on is multiplexing with a nicer face: the same calls, and work of its own on top.",
    "PEP 3156; gevent's documentation",
    nicer_face,
    tuple(Need(model, echo(ONE), split=True) for model in ("epoll", *_NICER)),
)
