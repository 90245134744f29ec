"""The best rate under a limit of latency: how many messages a second with p99 under so many milliseconds.

For each model and repeat a search by halves: messages go out at fixed times (open loop), and a rate is good
if p99 keeps the limit and no more than one message in a hundred found no free connection. The search begins
at the rate of the closed loop. The answer is the median of the repeats with its interval; a repeat beside
which something else took the machine does not count.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proact.lab.disturbance import Watch, is_disturbed
from proact.lab.lifetime import all_but_the_loads, pinned, separate_cores
from proact.lab.limits import refusal
from proact.lab.load_process import LoadError, LoadProcess
from proact.lab.measure import Bench, Cell
from proact.lab.registry import MODELS
from proact.lab.server_process import ServerError
from proact.lab.spread import Spread
from proact.lab.summary import ENOUGH

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Measured

#: Halvings of a search: the answer is known to 1/64 of the closed loop's rate.
STEPS: Final = 6

#: The share of messages that may find no free connection.
UNSENT: Final = 0.01

#: How often a disturbed measurement is taken again.
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
    def seconds(self) -> float:
        """Roughly how long it takes."""
        tries = len(self.models) * self.repeat * (STEPS + 1)
        return tries * (_OVERHEAD + self.duration * 1.2)


@dataclass(slots=True)
class Found:
    """The rates of one model, one for each repeat that nothing disturbed."""

    model: str
    rates: list[float] = field(default_factory=list)
    disturbed: int = 0  # repeats that do not count
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


def best(asked: Asked, tell: Callable[[str], None], tick: Callable[[], None] = lambda: None) -> list[Found]:
    """Search for each model, repeat after repeat in random order."""
    found = {name: Found(name, reason=_missing(name, asked)) for name in asked.models}
    usable = [name for name, each in found.items() if each.reason is None]
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
        for repeat in range(asked.repeat):
            for name in random.sample(usable, len(usable)):
                each = found[name]
                if each.reason is not None:
                    continue
                try:
                    each.rates.append(_one(bench, asked, name))
                    tell(f"{name}, repeat {repeat + 1}: {each.rates[-1]:,.0f} messages/s")
                except DisturbedError:
                    each.disturbed += 1
                    tell(f"{name}, repeat {repeat + 1}: disturbed")
                except (ServerError, LoadError) as error:
                    each.reason = str(error)
    return sorted(found.values(), key=lambda each: -(each.spread.median if each.spread else -1.0))


def _one(bench: Bench, asked: Asked, model: str) -> float:
    """One search. Raises DisturbedError, ServerError, LoadError."""

    def measure(rate: float | None) -> Measured:
        cell = Cell(model, asked.workload, asked.connections, asked.connections, asked.size, rate, 0)
        for _ in range(AGAIN + 1):
            watch = Watch()
            measured = bench.measure(cell)
            if not is_disturbed(watch.disturbance()):
                return measured
        raise DisturbedError

    closed = measure(None)
    return search(lambda rate: keeps(measure(rate), asked.limit), closed["messages"] / closed["seconds"])


def _missing(model: str, asked: Asked) -> str | None:
    return refusal(asked.connections) or MODELS[model].missing(asked.connections, asked.workload)
