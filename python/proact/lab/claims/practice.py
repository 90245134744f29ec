"""Claims of guides for people who run servers: TLS, many processes on one port, clients that read slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proact.lab.claims.intervals import difference, ratio
from proact.lab.claims.trial import (
    MANY,
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
    p99,
    turned,
)
from proact.lab.spread import Spread
from proact.lab.summary import Load, fullest, growth

if TYPE_CHECKING:
    from proact.lab.results import Measured

#: Fewer connections than the claims about numbers of them have: the slow readers and TLS take their part.
SOME: Final = 20

PLAIN: Final = echo(SOME)
OVER_TLS: Final = Load("tls", SOME, SOME, 1024, None)
BESIDE_SLOW_READERS: Final = Load("slow-readers", SOME, SOME, 1024, None)

#: "Little" is at most so many times the CPU time of a message without TLS.
CHEAP: Final = 1.25

_WITH_TLS: Final = ("threads", "epoll", "asyncio", "proact-epoll")

#: How much fuller the fullest process must be to be less even, as a share of an even share.
UNEVEN: Final = 0.1

#: Bytes that are much and little, for four clients that have sent some 10 MiB each. Twenty threads with their
#: stacks, arenas and buffers take about 4 MiB, whoever reads.
MUCH: Final = 12 << 20
LITTLE: Final = 8 << 20

#: Others are served as before if their p99 is at most so many times as long.
AS_BEFORE: Final = 2.0

_GREEDY: Final = "asyncio-greedy"
_CAREFUL: Final = ("threads", "epoll", "asyncio", "proact-epoll")


def tls_is_cheap(evidence: Evidence) -> Finding:
    """CPU time per message over TLS, against the same message without."""

    def judge(model: str) -> Part:
        dearer = ratio(evidence.values(model, OVER_TLS, cpu_us), evidence.values(model, PLAIN, cpu_us))
        return {model: turned(decided(dearer, CHEAP))}, f"{model} {dearer}", {model: dearer}

    sentence = "Over TLS a message of 1 KiB takes so many times the CPU time: {}."
    return of_each(_WITH_TLS, judge, sentence, cheap=CHEAP)


def even_spread(evidence: Evidence) -> Finding:
    """The connections of the fullest of several processes, as a multiple of an even share."""
    shares = {name: evidence.values(name, echo(MANY), _fullest) for name in ("prefork", "reuseport")}
    more = difference(shares["prefork"], shares["reuseport"])
    spreads = {name: Spread.of(each) for name, each in shares.items()}
    return conclude(
        {"reuseport": decided(more, UNEVEN, 0.0)},
        f"Of {MANY} connections, the fullest process has {spreads['prefork']} times its even share "
        f"with one listening socket for all, and {spreads['reuseport']} times with one for each.",
        {**spreads, "more": more, "uneven": UNEVEN},
    )


def _fullest(measured: Measured) -> float:
    shares = measured.get("shares", [])
    if not sum(shares):
        raise MissingError("the connections of the processes were not counted")
    return fullest(shares)


def slow_readers(evidence: Evidence) -> Finding:
    """Memory that a server takes for clients that read slowly, and the latency of the others meanwhile."""

    def judge(model: str) -> Part:
        grown = Spread.of(evidence.values(model, BESIDE_SLOW_READERS, _grown))
        held = decided(grown, MUCH, LITTLE)
        said = f"{model} grew by {grown.median / (1 << 20):.1f} MiB"
        if model == _GREEDY:
            return {f"memory of {model}": held}, said, {model: {"grown_bytes": grown}}
        later = ratio(*(evidence.values(model, load, p99) for load in (BESIDE_SLOW_READERS, PLAIN)))
        cases = {f"memory of {model}": turned(held), f"others at {model}": turned(decided(later, AS_BEFORE))}
        said += f", the others' p99 is {later} times as long"
        return cases, said, {model: {"grown_bytes": grown, "p99": later}}

    evidence.measured(_GREEDY, BESIDE_SLOW_READERS)  # without it, half of the claim is not tested
    sentence = "Beside four clients that read slowly {}."
    limits = {"much": MUCH, "little": LITTLE, "as_before": AS_BEFORE}
    return of_each((_GREEDY, *_CAREFUL), judge, sentence, **limits)


def _grown(measured: Measured) -> float:
    if measured["occupied"] is None or "lazy" not in measured:
        raise MissingError("the memory of a server was not read")
    return growth(measured)


TLS_IS_CHEAP: Final = Trial(
    "tls-is-cheap",
    "On a connection that stands, TLS costs little CPU time.",
    "Grigorik, High Performance Browser Networking, ch. 4, after Langley, Overclocking SSL",
    tls_is_cheap,
    tuple(Need(model, load) for model in _WITH_TLS for load in (PLAIN, OVER_TLS)),
)

EVEN_SPREAD: Final = Trial(
    "even-spread",
    "With a listening socket for each process (SO_REUSEPORT) connections spread more evenly than with one.",
    "Kerrisk, The SO_REUSEPORT socket option, LWN 2013",
    even_spread,
    (Need("reuseport", echo(MANY)), Need("prefork", echo(MANY))),
)

SLOW_READERS: Final = Trial(
    "slow-readers",
    "Without flow control a client that reads slowly fills the server's memory; with it, it takes neither "
    "memory nor the others' time.",
    "Python's documentation of asyncio, on pause_writing; Ronacher, I'm not feeling the async pressure",
    slow_readers,
    (
        Need(_GREEDY, BESIDE_SLOW_READERS),
        *(Need(model, load) for model in _CAREFUL for load in (PLAIN, BESIDE_SLOW_READERS)),
    ),
)
