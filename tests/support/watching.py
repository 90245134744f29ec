"""An observer of the laboratory's runs that records its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.measure import Cell
    from proact.lab.results import CellResult
    from proact.lab.run import Settings


class Watcher:
    """Records its calls, and does something with the cell that is measured at each tick."""

    def __init__(self, at_tick: Callable[[Cell], None] = lambda cell: None) -> None:
        self.at_tick = at_tick
        self.cells: list[Cell] = []
        self.results: list[CellResult] = []

    def planned(self, settings: Settings, cells: int, seconds: float) -> None:
        self.plan = cells, seconds

    def started(self, cell: Cell, done: int, cells: int) -> None:
        self.cells.append(cell)

    def heard(self, rate: float, p50: int, p99: int) -> None:
        pass

    def tick(self) -> None:
        self.at_tick(self.cells[-1])

    def finished(self, result: CellResult) -> None:
        self.results.append(result)
