"""Shows the progress of a run on stderr: a live line on a terminal, a plain line per cell elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from proact.lab.summary import Load
from proact.lab.table import describe

if TYPE_CHECKING:
    from proact.lab.measure import Cell
    from proact.lab.results import CellResult
    from proact.lab.run import Settings
    from proact.lab.timeline import Taken

#: Drawing costs some milliseconds on the load's core, so draw seldom, and not in a separate thread.
_REFRESH: Final = 0.5


def outcome(result: CellResult) -> str:
    """The result of a cell, in a few words."""
    measured = result["measured"]
    if measured is None:
        return f"{result['status'].upper()}: {result['reason']}"
    return f"{measured['messages'] / measured['seconds']:,.0f} {Load.of(result).unit}s/s"


class PlainProgress:
    """One line when a run starts, and one for each finished cell; for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.cells = self.done = 0

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        self.cells = cells
        self.say(f"{cells} cell{plural(cells)}, about {duration(seconds)} (seed {settings.seed})")

    def started(self, cell: Cell, done: int, cells: int) -> None:
        self.done, self.cells = done, cells

    def tick(self) -> None:
        pass

    def heard(self, rate: float, p50: int, p99: int) -> None:
        pass

    def finished(self, result: CellResult) -> None:
        self.done += 1
        what = f"{result['model']}, {describe(Load.of(result))}"
        self.say(f"[{self.done}/{self.cells}] {what}: {outcome(result)}")

    def note(self, what: str) -> None:
        """Show a step that is not a cell."""
        self.say(what)

    def taken(self, taken: Taken) -> None:
        pass

    def say(self, line: str) -> None:
        """One line to stderr, as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress(PlainProgress):
    """A bar with the current step and the time left; failures stay above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.planned_seconds = 0.0
        self.what = ""  # is measured now
        self.begun = self.drawn = time.monotonic()
        self.progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self.task = self.progress.add_task("", total=None, left="")

    def __enter__(self) -> LiveProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        super().planned(settings, cells, seconds)
        self.planned_seconds = seconds
        self.begun = time.monotonic()
        self.progress.update(self.task, total=cells, left=duration(seconds))

    def started(self, cell: Cell, done: int, cells: int) -> None:
        super().started(cell, done, cells)
        load = Load(cell.workload, cell.connections, cell.active, cell.size, cell.rate)
        self.what = f"{cell.model}, {describe(load)}"
        self.progress.update(self.task, description=self.what, completed=done, total=cells)
        self.draw()

    def tick(self) -> None:
        if time.monotonic() - self.drawn >= _REFRESH:
            self.draw()

    def heard(self, rate: float, p50: int, p99: int) -> None:
        latency = f", p99 {p99 / 1e3:,.0f} µs" if p99 else ""
        self.progress.update(self.task, description=f"{self.what}: {rate:,.0f}/s{latency}")

    def finished(self, result: CellResult) -> None:
        if result["status"] == "failed":
            super().finished(result)
        else:
            self.done += 1

    def note(self, what: str) -> None:
        self.progress.update(self.task, description=what, left="-")
        self.progress.refresh()

    def draw(self) -> None:
        """Redraw, with the time left estimated from the cells so far."""
        self.drawn = time.monotonic()
        passed = self.drawn - self.begun
        left = self.planned_seconds - passed
        if self.done:
            left = max(0.0, passed / self.done * (self.cells - self.done))
        self.progress.update(self.task, left=duration(left))
        self.progress.refresh()


def plural(count: int) -> str:
    """The ending of a noun."""
    return "" if count == 1 else "s"


def duration(seconds: float) -> str:
    """Seconds as people write them: 45 s, 2 min 5 s."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def watch() -> PlainProgress:
    """The kind of progress that suits the destination of stderr."""
    console = Console(stderr=True)
    # Not console.is_terminal: FORCE_COLOR makes it true for a file, which would fill with redrawn lines.
    animated = sys.stderr.isatty() and not console.is_dumb_terminal
    return LiveProgress(console) if animated else PlainProgress(console)
