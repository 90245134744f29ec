"""The three questions: how many connections, what a request does, how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proact.lab.asked import AskedError, duration, number, period
from proact.lab.limits import MAX_SIZE
from proact.lab.table import amount
from proact.lab.workloads import LONGEST, base, timed
from proact.lab.workloads.web import LARGEST

#: The workload that does what a request of somebody does.
WORKS: Final = {
    "nothing": "echo",
    "cpu": "cpu",
    "wait": "wait",
    "file": "file",
    "tls": "tls",
    "fanout": "fanout",
    "churn": "churn",
}

#: How the question about the request can be answered.
DOES: Final = "nothing, cpu:TIME, wait:TIME, file, tls, fanout or churn; a time such as 50us or 10ms"

#: The seconds that a cell is measured and warmed up; more if a request takes long.
DURATION: Final = 0.3
WARMUP: Final = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody's own numbers."""

    connections: int
    active: int  # of these, how many send
    work: str  # one of WORKS
    seconds: float  # that a request computes or waits; 0 for the others
    size: int  # bytes of one answer

    @property
    def workload(self) -> str:
        """The laboratory's name for it."""
        kind = WORKS[self.work]
        return timed(kind, self.seconds) if self.work in ("cpu", "wait") else kind

    @property
    def words(self) -> str:
        """The numbers in words."""
        many = f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"
        if self.active < self.connections:
            share = " (mostly idle)" if self.active * 10 <= self.connections else ""
            many += f"{share}, {self.active:,} of which send{'s' if self.active == 1 else ''},"
        return f"{many} and a request of {amount(self.size)} that {self.does}"

    @property
    def does(self) -> str:
        """What a request does, in words."""
        return {
            "nothing": "does nothing else",
            "cpu": f"computes for {duration(self.seconds)}",
            "wait": f"waits {duration(self.seconds)} for another server",
            "file": "reads it from a file",
            "tls": "goes over TLS and does nothing else",
            "fanout": "asks three other servers for it",
            "churn": "has a connection of its own",
        }[self.work]

    @property
    def times(self) -> tuple[float, float]:
        """The seconds for which a cell is measured, and warmed up: several requests long."""
        return max(DURATION, 5 * self.seconds), max(WARMUP, 1.5 * self.seconds)

    @property
    def command(self) -> str:
        """The command that measures it."""
        active = f" --active {self.active}" if self.active < self.connections else ""
        measured, warmup = self.times
        times = f" --duration {measured:g} --warmup {warmup:g}" if measured > DURATION else ""
        return (
            f"proact lab run --workload {self.workload} --connections {self.connections}{active} "
            f"--size {self.size}{times} --json mine.json"
        )


def question(connections: str, active: str, does: str, size: str, *, dashes: str = "--") -> Question:
    """Read what a person answered; an empty ``active`` means all of them. Raises AskedError."""
    many = number(f"{dashes}connections", connections, 1_000_000)
    sending = number(f"{dashes}active", active, 1_000_000) if active.strip() else many
    if sending > many:
        raise AskedError(f"{dashes}active is {sending:,}, but {dashes}connections is {many:,}")
    work, seconds = _work(f"{dashes}does", does)
    most = MAX_SIZE if work in ("nothing", "tls", "churn") else LARGEST
    return Question(many, sending, work, seconds, number(f"{dashes}size", size or "1K", most))


def _work(option: str, text: str) -> tuple[str, float]:
    kind, _, time = text.strip().partition(":")
    wrong = AskedError(f"{option} is {text!r}: it takes {DOES}")
    if kind not in WORKS or bool(time) != (kind in ("cpu", "wait")):
        raise wrong
    if not time:
        return kind, 0.0
    return kind, period(f"{option}'s time", time, 1e-6, LONGEST)


def work_of(workload: str) -> str | None:
    """The kind of work that a workload asks about; None if it is about none of them."""
    return next((work for work, name in WORKS.items() if name == base(workload)), None)
