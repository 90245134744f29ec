"""The best rate under a limit of latency: how many messages a second with p99 under so many milliseconds.

For each model and repeat a search by halves: messages go out at fixed times (open loop), and a rate is good
if p99 keeps the limit and no more than one message in a hundred found no free connection. The search begins
at the rate of the closed loop. The answer is the median of the repeats with its interval; a repeat beside
which something else took the machine does not count, and is taken once more later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proact.lab.asked import duration
from proact.lab.disturbance import Watch, is_disturbed, named
from proact.lab.lifetime import all_but_the_loads, pinned, separate_cores
from proact.lab.limits import refusal
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.measure import Bench, Cell
from proact.lab.registry import MODELS, Family
from proact.lab.server_process import ServerError
from proact.lab.spread import Spread
from proact.lab.summary import ENOUGH, LOAD_BOUND, Load
from proact.lab.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proact.lab.results import Measured

#: Halvings of a search: the answer is known to 1/64 of the closed loop's rate.
STEPS: Final = 6

#: The share of messages that may find no free connection.
UNSENT: Final = 0.01

#: How often a disturbed measurement is taken again, and then the whole repeat.
AGAIN: Final = 1

#: Starting and ending a server, in seconds; only for estimating the time.
_OVERHEAD: Final = 0.3


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for. Times in seconds."""

    limit: float  # of the 99th percentile
    workload: str
    connections: int
    size: int
    models: tuple[str, ...]
    duration: float
    repeat: int

    @property
    def load(self) -> Load:
        """The load without its rate."""
        return Load(self.workload, self.connections, self.connections, self.size, None)

    @property
    def missing(self) -> dict[str, str]:
        """The models that can't be measured here, with the reason."""
        refused = refusal(WORKLOADS[self.workload].opened(self.connections))
        reasons = {
            name: refused or MODELS[name].missing(self.connections, self.workload) for name in self.models
        }
        return {name: reason for name, reason in reasons.items() if reason is not None}

    @property
    def seconds(self) -> float:
        """Roughly how long it takes, if nothing disturbs it."""
        tries = (len(self.models) - len(self.missing)) * self.repeat * (STEPS + 1)
        return tries * (_OVERHEAD + self.duration * 1.2)


@dataclass(slots=True)
class Found:
    """The rates of one model, one for each repeat that nothing disturbed."""

    model: str
    rates: list[float] = field(default_factory=list)
    disturbed: int = 0  # repeats that do not count
    load_bound: bool = False  # the load had used up its core at the highest rate, which was good
    reason: str | None = None  # why the model could not be measured

    @property
    def spread(self) -> Spread | None:
        """The median and its interval; None with fewer than five repeats."""
        return Spread.of(self.rates) if len(self.rates) >= ENOUGH else None

    def as_object(self) -> dict[str, Any]:
        """In the form of JSON."""
        spread = self.spread
        interval = {"median": spread.median, "low": spread.low, "high": spread.high} if spread else None
        return {
            "model": self.model,
            "rates": self.rates,
            "disturbed": self.disturbed,
            "load_bound": self.load_bound,
            "reason": self.reason,
            "messages_per_second": interval,
        }


class DisturbedError(Exception):
    """Something else took the machine, also when the measurement was taken again."""


def keeps(measured: Measured, limit: float) -> bool:
    """Whether a measurement at a fixed rate kept the limit."""
    unsent = measured["unsent"] / (measured["messages"] + measured["unsent"])
    return measured["latency"]["percentiles"]["p99"] <= limit * 1e9 and unsent <= UNSENT


def search(good: Callable[[float], bool], top: float) -> float:
    """The highest rate up to ``top`` that is good, by halves, if every lower one is; 0 if none was."""
    low, high = 0.0, top
    if good(top):
        return top
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def best(
    asked: Asked,
    found: dict[str, Found],
    tell: Callable[[str], None],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Search for each model in ``found``, repeat after repeat in random order; it holds what is known so far.

    A model is searched for until it has its repeats, at most twice as often.
    """
    server_cpu, load_cpu = separate_cores() or (None, None)
    several = all_but_the_loads()
    with pinned(load_cpu), LoadProcess(cpu=load_cpu) as load:
        bench = Bench(
            load,
            server_cpu,
            asked.duration / 5,
            asked.duration,
            tick,
            load_cpu=load_cpu,
            several=several,
        )
        for _ in range((1 + AGAIN) * asked.repeat):
            wanting = [each for each in found.values() if not each.reason and len(each.rates) < asked.repeat]
            for each in random.sample(wanting, len(wanting)):
                tell(f"{each.model}, {_once(bench, asked, each)}")


def _once(bench: Bench, asked: Asked, found: Found) -> str:
    """One search for one model; what came out, in words."""
    repeat = len(found.rates) + 1
    try:
        rate, bound = _search(bench, asked, found.model)
    except DisturbedError as error:
        found.disturbed += 1
        return f"repeat {repeat} of {asked.repeat}: {error}"
    except (ServerError, LoadError) as error:
        found.reason = str(error)
        return f"FAILED: {error}"
    found.rates.append(rate)
    found.load_bound |= bound
    return f"repeat {repeat} of {asked.repeat}: {rate:,.0f} messages/s"


def _search(bench: Bench, asked: Asked, model: str) -> tuple[float, bool]:
    """The rate of one search, and whether the load set it. Raises DisturbedError, ServerError, LoadError."""

    def measure(rate: float | None) -> Measured:
        cell = Cell(model, asked.workload, asked.connections, asked.connections, asked.size, rate, 0)
        for _ in range(AGAIN + 1):
            watch = Watch()
            measured = bench.measure(cell)
            if not is_disturbed(disturbance := watch.disturbance()):
                return measured
        raise DisturbedError(f"disturbed, by {named(disturbance)}")

    closed = measure(None)
    top = closed["messages"] / closed["seconds"]
    rate = search(lambda rate: keeps(measure(rate), asked.limit), top)
    return rate, rate == top and closed["load_cpu_seconds"] / closed["seconds"] > LOAD_BOUND


def sentence(asked: Asked, found: Sequence[Found]) -> str:
    """The answer: the model with the highest rate, and those that can't be told from it; no ceilings."""
    within = f"with p99 under {duration(asked.limit)}"
    known = [
        (each, spread)
        for each in found
        if MODELS[each.model].family != Family.CEILING and (spread := each.spread) is not None
    ]
    if not known:
        return f"No answer: of no model there are {ENOUGH} repeats that nothing disturbed."
    first, most = max(known, key=lambda each: each[1].median)
    if not most.median:
        return f"No model answers any messages {within}."
    level = [each.model for each, spread in known if each is not first and spread.high >= most.low]
    also = f", level with {', '.join(level)}" if level else ""
    return (
        f"Most messages {within}: {first.model}, {most.median:,.0f} a second "
        f"({most.low:,.0f} to {most.high:,.0f}){also}."
    )
