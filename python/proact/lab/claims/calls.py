"""Claims about system calls per message: what multiplexing adds, and what coroutines hide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proact.lab.claims.intervals import ratio
from proact.lab.claims.trial import (
    MANY,
    ONE,
    UNP,
    Evidence,
    Finding,
    MissingError,
    Need,
    Trial,
    conclude,
    cpu_us,
    decided,
    echo,
    raw,
    shown,
)
from proact.lab.summary import Spread

if TYPE_CHECKING:
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

    def incoming(model: str, connections: int) -> float:
        found = per_message(evidence.split(model, echo(connections)))
        return found["waits"] + found["receives"]

    one = {model: incoming(model, ONE) for model in ("blocking", *_PLAIN)}
    many = {model: incoming(model, MANY) for model in ("threads", "epoll")}
    cases = {f"{model} at {ONE}": _one_more(one[model] - one["blocking"]) for model in _PLAIN}
    cases[f"epoll at {MANY}"] = _one_more(many["epoll"] - many["threads"])
    return conclude(
        cases,
        f"At one connection blocking makes {one['blocking']:.2f} calls to receive a message, "
        + ", ".join(f"{model} {one[model]:.2f}" for model in _PLAIN)
        + f"; at {MANY} connections threads make {many['threads']:.2f} and epoll {many['epoll']:.2f}.",
        {"one_connection": one, f"{MANY}_connections": many, "tolerance": TOLERANCE},
    )


def _one_more(difference: float) -> Verdict:
    return "supported" if abs(difference - 1) <= TOLERANCE else "contradicted"


def nicer_face(evidence: Evidence) -> Finding:
    """A loop's calls per message against plain epoll's, and its CPU time."""
    plain = per_message(evidence.split("epoll", echo(ONE)))
    price = evidence.values("epoll", echo(ONE), cpu_us)
    found: dict[str, Any] = {"epoll": plain | {"cpu_us": raw(Spread.of(price))}}
    cases: dict[str, Verdict] = {}
    parts = []
    for model in _NICER:
        try:
            calls = per_message(evidence.split(model, echo(ONE)))
            dearer = ratio(evidence.values(model, echo(ONE), cpu_us), price)
        except MissingError as missing:
            found[model] = str(missing)
            continue
        same = all(abs(calls[name] - plain[name]) <= SAME for name in ("waits", "receives", "sends"))
        cases[f"calls of {model}"] = "supported" if same else "contradicted"
        cases[f"CPU of {model}"] = decided(dearer, 1.0, 1.0)
        found[model] = calls | {"cpu_of_epoll": raw(dearer)}
        parts.append(
            f"{model} waits {calls['waits']:.2f}, receives {calls['receives']:.2f}, sends "
            f"{calls['sends']:.2f} of {calls['all']:.2f} calls, for {shown(dearer)} times the CPU"
        )
    return conclude(
        cases,
        f"Per message epoll waits {plain['waits']:.2f}, receives {plain['receives']:.2f}, sends "
        f"{plain['sends']:.2f} of {plain['all']:.2f} calls; {'; '.join(parts)}.",
        found | {"same_within": SAME},
    )


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
    tuple(Need(model, echo(ONE), intervals=True, split=True) for model in ("epoll", *_NICER)),
)
