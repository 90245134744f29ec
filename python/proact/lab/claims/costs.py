"""Claims about CPU time: the cost of polling, and of watching many descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proact.lab.claims.intervals import ratio
from proact.lab.claims.trial import (
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
    turned,
)
from proact.lab.spread import Spread
from proact.lab.summary import cpu_seconds

if TYPE_CHECKING:
    from proact.lab.results import Measured, Split

#: A light load: so many connections, and so many messages per second over all of them.
QUIET: Final = echo(10, rate=200.0)

#: Shares of a core that count as a whole core, and as none.
WHOLE: Final = 0.9
IDLE: Final = 0.25

#: The watched descriptors of which one is active, and the number for the case that many are active.
#: Less than half of the 1,023 of select(2): those of one pass may still be open when the next begins.
NARROW: Final = echo(10, 1)
WIDE: Final = echo(400, 1)
BUSY: Final = echo(400, 40)

#: A cost grows if it becomes at least the first number of times as large. It does not grow if it stays
#: below the second.
GROWS: Final = 2.0
LEVEL: Final = 1.25


def polling_burns(evidence: Evidence) -> Finding:
    """The share of a core that a server takes when it has little to do."""
    cores = {model: Spread.of(evidence.values(model, QUIET, _cores)) for model in ("nonblocking", "epoll")}
    polling, waiting = cores["nonblocking"], cores["epoll"]
    cases = {"nonblocking": decided(polling, WHOLE, IDLE), "epoll": turned(decided(waiting, WHOLE, IDLE))}
    return conclude(
        cases,
        f"At {QUIET.rate:,.0f} messages/s polling takes {polling} cores and epoll {waiting}.",
        {"cores": cores, "whole": WHOLE, "idle": IDLE},
    )


def _cores(measured: Measured) -> float:
    return cpu_seconds(measured) / measured["seconds"]


def watching_costs(evidence: Evidence) -> Finding:
    """CPU time per message as more is watched, and per call of epoll_wait as more of that is active."""
    watched = {
        model: ratio(*(evidence.values(model, load, cpu_us) for load in (WIDE, NARROW)))
        for model in ("select", "epoll")
    }
    evidence.needs_cores()
    active = ratio(*(evidence.over_splits("epoll", load, _wait_us) for load in (BUSY, WIDE)))
    cases = {
        "select by the watched": decided(watched["select"], GROWS, LEVEL),
        "epoll by the watched": turned(decided(watched["epoll"], GROWS, LEVEL)),
        "epoll by the active": decided(active, GROWS, LEVEL),
    }
    return conclude(
        cases,
        f"With {WIDE.connections} connections watched for {NARROW.connections}, one of them active, a "
        f"message costs select {watched['select']} times the CPU and epoll {watched['epoll']}; "
        f"with {BUSY.active} active an epoll_wait costs {active} times what it costs with one.",
        {"watched": watched, "active": active, "grows": GROWS, "level": LEVEL},
    )


def _wait_us(split: Split) -> float:
    """The CPU time of one waiting call, in µs."""
    calls = [call for call in split["calls"].values() if call.get("role") == "waits"]
    count = sum(call["count"] for call in calls)
    if not count:
        raise MissingError("no call was made that waits")
    return sum(call["cpu"] for call in calls) * 1e6 / count


POLLING: Final = Trial(
    "polling",
    "Polling with non-blocking calls burns a core, whether there is work or not.",
    f"{UNP}, fig. 6.2",
    polling_burns,
    tuple(Need(model, QUIET) for model in ("nonblocking", "epoll")),
)

WATCHING: Final = Trial(
    "watching",
    "select's cost grows with the descriptors watched, epoll's with those that are active.",
    "Kerrisk, The Linux Programming Interface, ch. 63.4.5",
    watching_costs,
    (
        *(Need(model, load) for model in ("select", "epoll") for load in (NARROW, WIDE)),
        *(Need("epoll", load, split=True) for load in (WIDE, BUSY)),
    ),
)
