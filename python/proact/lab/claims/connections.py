"""Claims about the number of connections: multiplexing against a thread for each, with Python and without."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

from proact.lab.claims.intervals import difference, ratio
from proact.lab.claims.trial import (
    FEW,
    MANY,
    ONE,
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
    p50,
    rate,
    turned,
)
from proact.lab.spread import Spread
from proact.lab.summary import growth, lines, share

if TYPE_CHECKING:
    from proact.lab.results import Measured, Verdict

#: "Not faster" still allows this much.
MARGIN: Final = 0.05

#: "Costs more" means at least so many times as much.
DEARER: Final = 2.0

#: A thread for each connection, and multiplexing: in Python, and in Rust, without an interpreter's lock.
Pair = tuple[str, str]
PAIRS: Final[tuple[Pair, ...]] = (("threads", "epoll"), ("bare-threads", "bare-epoll"))


def _of_threads(evidence: Evidence, pair: Pair, connections: int) -> Spread:
    """The messages per second of multiplexing, as a multiple of the threads'."""
    threads, multiplexing = (evidence.values(model, echo(connections), rate) for model in pair)
    return ratio(multiplexing, threads)


def not_faster(evidence: Evidence) -> Finding:
    """Messages per second and median latency with few connections."""

    def judge(pair: Pair) -> Part:
        cases: dict[str, Verdict] = {}
        said, numbers = [], {}
        for connections in (ONE, FEW):
            speed = _of_threads(evidence, pair, connections)
            threads, multiplexing = (evidence.values(model, echo(connections), p50) for model in pair)
            latency = ratio(multiplexing, threads)
            # Faster where all of the interval is beyond the margin; not faster where none of it is.
            cases[f"{pair[1]} at {connections}"] = turned(decided(speed, 1 + MARGIN))
            said.append(f"{speed} at {connections} with {latency.median:.2f} times the latency")
            numbers[f"{connections}_connections"] = {"rate": speed, "p50": latency}
        sentence = f"{pair[1]} answers as many messages as {pair[0]} times {', '.join(said)}"
        return cases, sentence, {" and ".join(pair): numbers}

    return of_each(PAIRS, judge, "{}.", margin=MARGIN)


def gain_is_connections(evidence: Evidence) -> Finding:
    """Whether multiplexing gains on threads as connections grow, and how many threads the model needs."""

    def judge(pair: Pair) -> Part:
        one, many = (_of_threads(evidence, pair, connections) for connections in (ONE, MANY))
        threads = {
            model: max(each["threads"] for each in evidence.occupied(model, echo(MANY))) for model in pair
        }
        said = (
            f"{pair[1]} against {pair[0]}: {one} times the messages at {ONE} connection, "
            f"{many} at {MANY}, with {threads[pair[1]]} of {threads[pair[0]]} threads"
        )
        numbers = {"one": one, "many": many, "threads": threads}
        return {pair[1]: decided(share(many, one), 1.0)}, said, {" and ".join(pair): numbers}

    return of_each(PAIRS, judge, "{}.")


def thread_costs(evidence: Evidence) -> Finding:
    """Memory per connection and context switches per message, under many connections."""

    def judge(pair: Pair) -> Part:
        memory = {model: evidence.values(model, echo(MANY), _memory) for model in pair}
        switches = {model: evidence.values(model, echo(MANY), _switches) for model in pair}
        threads, multiplexing = pair
        # Compare by a difference (threads less twice multiplexing), because multiplexing may have zero.
        more, oftener = (
            difference(cost[threads], [DEARER * each for each in cost[multiplexing]])
            for cost in (memory, switches)
        )
        cases = {f"memory of {threads}": decided(more, 0.0), f"switches of {threads}": decided(oftener, 0.0)}
        said = (
            f"at {MANY} connections {threads} holds {median(memory[threads]) / 1024:.1f} KiB a connection "
            f"and switches {median(switches[threads]):.2f} times a message, {multiplexing} "
            f"{median(memory[multiplexing]) / 1024:.1f} KiB and {median(switches[multiplexing]):.2f}"
        )
        numbers = {
            what: {name: Spread.of(each) for name, each in cost.items()}
            for what, cost in (("bytes", memory), ("switches", switches))
        }
        return cases, said, {" and ".join(pair): numbers}

    return of_each(PAIRS, judge, "{}.", times=DEARER)


def _memory(measured: Measured) -> float:
    if (fitted := lines([measured])[0]) is not None:
        return fitted.slope.median
    if measured["occupied"] is None:
        raise MissingError("the memory of a server was not read")
    return growth(measured) / MANY


def _switches(measured: Measured) -> float:
    return (measured["switches_voluntary"] + measured["switches_involuntary"]) / measured["messages"]


def _needs(*connections: int) -> tuple[Need, ...]:
    return tuple(Need(model, echo(number)) for number in connections for pair in PAIRS for model in pair)


NOT_FASTER: Final = Trial(
    "not-faster",
    "With few connections multiplexing is not faster than threads with blocking I/O, and may answer later.",
    f"a corollary of {UNP}, fig. 6.3: one more call, for one descriptor",
    not_faster,
    _needs(ONE, FEW),
)

GAIN: Final = Trial(
    "gain-is-connections",
    "What multiplexing gains is the number of connections: the more there are, the better it does.",
    f"{UNP}: the advantage is to wait for more than one descriptor",
    gain_is_connections,
    _needs(ONE, MANY),
)

THREAD_COSTS: Final = Trial(
    "thread-costs",
    "A thread for each connection costs memory and context switches.",
    "Kegel, The C10K problem",
    thread_costs,
    _needs(MANY),
)
