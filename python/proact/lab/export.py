"""A run's results in other shapes: a CSV of its cells, and two runs side by side."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from proact.lab.results import PERCENTILES
from proact.lab.summary import ENOUGH, Load, Row, blocks

if TYPE_CHECKING:
    from proact.lab.results import CellResult, Document

_CELL: Final = (
    "workload",
    "model",
    "connections",
    "active",
    "size",
    "rate",
    "repeat",
    "order",
    "status",
    "reason",
)
_TIMED: Final = (
    "messages",
    "bytes",
    "unsent",
    "seconds",
    "connect_seconds",
    "load_cpu_seconds",
    "server_user_seconds",
    "server_system_seconds",
    "switches_voluntary",
    "switches_involuntary",
    "others_cpu",
)


def to_csv(document: Document) -> str:
    """One line for each cell, raw as in the JSON but without histograms; latencies in ns. Empty: not
    measured.
    """
    out = io.StringIO()
    lines = [_flat(cell) for cell in document["cells"]]
    columns = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(cell: CellResult) -> dict[str, Any]:
    line: dict[str, Any] = {name: cell[name] for name in _CELL}
    measured = cell["measured"]
    if measured is None:
        return line
    line |= {name: measured[name] for name in _TIMED}
    line |= {f"latency_{name}_ns": measured["latency"]["percentiles"][name] for name in PERCENTILES}
    if "how" in measured:
        line["how"] = measured["how"]
    if (slow := measured["slow"]) is not None:
        line["slow_messages"] = slow["messages"]
        line |= {f"slow_{name}_ns": slow["latency"]["percentiles"][name] for name in PERCENTILES}
    if (split := measured["split"]) is not None:
        line |= {f"split_{name}": value for name, value in split.items() if name != "calls"}
    if (counted := measured["counted"]) is not None:
        line |= {f"counted_{name}": value for name, value in counted.items()}
    if (occupied := measured["occupied"]) is not None:
        line |= occupied
    if (lazy := measured.get("lazy")) is not None:
        line |= {f"lazy_{name}": value for name, value in lazy.items()}
    if "shares" in measured:
        line["shares"] = " ".join(map(str, measured["shares"]))
    return line


@dataclass(frozen=True, slots=True)
class Difference:
    """One model under one load in two runs; the ratios are of the second run to the first."""

    load: Load
    model: str
    before: float  # messages per second
    after: float
    rate: float
    cpu: float  # ratio of the CPU time per message
    p99: float
    verdict: str  # on messages per second: "faster", "slower", "level" (intervals overlap), "unknown"


def differences(first: Document, second: Document) -> list[Difference]:
    """The models and loads that both runs have numbers for, in the order of the first run."""
    found = {(block.load, row.model): row for block in blocks(second) for row in block.rows}
    return [
        _difference(block.load, row, other)
        for block in blocks(first)
        for row in block.rows
        if (other := found.get((block.load, row.model))) is not None
    ]


def _difference(load: Load, one: Row, other: Row) -> Difference:
    verdict = "level"
    if min(one.repeats, other.repeats) < ENOUGH:
        verdict = "unknown"  # no interval to judge by
    elif other.rate.low > one.rate.high:
        verdict = "faster"
    elif other.rate.high < one.rate.low:
        verdict = "slower"
    return Difference(
        load=load,
        model=one.model,
        before=one.rate.median,
        after=other.rate.median,
        rate=other.rate.median / one.rate.median,
        cpu=other.cpu_us.median / one.cpu_us.median if one.cpu_us.median else float("nan"),
        p99=other.p99 / one.p99 if one.p99 else float("nan"),
        verdict=verdict,
    )


def as_objects(found: list[Difference]) -> list[dict[str, Any]]:
    """The differences in the form of JSON."""
    return [asdict(each) for each in found]
