"""A run's results as tables for a terminal: one for each load, at most 100 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.results import Document
from proact.lab.summary import Absent, Block, Row, blocks, verdict

WIDTH: Final = 100
_NARROW: Final = 96  # below this many columns, the bar and the kind give way to the numbers
_BAR: Final = 9
_NAME: Final = 15

_STYLES: Final = {"proact": "bold", "ceiling": "dim italic"}


def console() -> Console:
    """Stdout: as wide as the terminal up to ``WIDTH``; ``WIDTH``, without colour, where it is none."""
    terminal = Console()
    if not sys.stdout.isatty():
        return Console(width=WIDTH, color_system=None, highlight=False)
    return Console(width=min(terminal.width, WIDTH), highlight=False)


def render(document: Document, width: int = WIDTH) -> RenderableType:
    """All of a run: its machine, a table and a verdict for each load, and what was not measured."""
    parts: list[RenderableType] = [_heading(document)]
    for block in blocks(document):
        parts += ["", _title(block), _table(block, width, document["settings"]["repeat"])]
        if block.absent:
            parts.append(_absent(block.absent))
        parts += [
            Text(f"{row.model}: {len(row.failures)} repeats failed: {row.failures[0]}", style="red")
            for row in block.rows
            if row.failures
        ]
        if block.uncounted:
            parts.append(Text(f"System calls were not counted: {block.uncounted}", style="dim"))
        parts += [Text(line) for line in verdict(block)]
    parts += ["", Text(_LEGEND, style="dim")]
    return Group(*parts)


_LEGEND: Final = (
    "CPU µs and calls (system calls) are the server's per message; KiB/c: resident memory per connection, without\n"
    "the kernel's socket buffers. Italic: ceilings in Rust, no Python. Calls are counted in a pass of their own."
)


def _heading(document: Document) -> Text:
    facts, settings = document["environment"], document["settings"]
    where = f"{facts['cpu']}, {facts['cores']} cores, Linux {facts['kernel']}, {facts['python']}"
    how = (
        f"Echo over loopback, closed loop, {settings['duration']:g} s per cell after {settings['warmup']:g} s, "
        f"{settings['repeat']} repeat{'s' if settings['repeat'] > 1 else ''}, seed {document['seed']}, "
        f"{'server and load on a core each' if settings['pinned'] else 'server and load share a core'}"
    )
    return Text.assemble((where, "dim"), "\n", (how, "dim"))


def _title(block: Block) -> Text:
    plural = "s" if block.connections > 1 else ""
    return Text(f"{block.connections:,} connection{plural} x {amount(block.size)}", style="bold")


def _table(block: Block, width: int, repeats: int) -> Table:
    columns: list[tuple[str, int, Callable[[Row], str | Text]]] = [
        ("msgs/s", 9, lambda row: f"{row.rate.median:,.0f}"),
        ("p50 µs", 7, lambda row: number(row.p50)),
        ("p99", 7, lambda row: number(row.p99)),
        ("p99.9", 7, lambda row: number(row.p999)),
        ("CPU µs", 6, lambda row: number(row.cpu_us.median)),
        ("calls", 5, lambda row: "-" if row.calls is None else f"{row.calls:.2f}"),
        ("thr.", 4, lambda row: "-" if row.threads is None else str(row.threads)),
        ("KiB/c", 6, lambda row: "-" if row.memory is None else number(row.memory / 1024)),
    ]
    if repeats > 1:
        columns.insert(1, ("±", 4, lambda row: f"{row.rate.half_range:.0%}"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", width=_NAME, no_wrap=True)
    roomy = width >= _NARROW
    if roomy:
        table.add_column("I/O model", width=12, no_wrap=True)
        table.add_column("", width=_BAR - (5 if repeats > 1 else 0), no_wrap=True)
    for heading, size, _ in columns:
        table.add_column(heading, width=size, justify="right", no_wrap=True)
    best = max((row.rate.median for row in block.rows), default=1.0)
    for row in block.rows:
        cells: list[str | Text] = [row.model]
        if roomy:
            length = _BAR - (5 if repeats > 1 else 0)
            cells += [row.kind, Text(bar(row.rate.median / best, length), style="cyan")]
        cells += [cell(row) for _, _, cell in columns]
        table.add_row(*cells, style=_STYLES.get(row.family, ""))
    return table


def _absent(models: tuple[Absent, ...]) -> Table:
    """The rows of what has no numbers: name and reason."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=_NAME, no_wrap=True)
    table.add_column(overflow="fold")
    for model in models:
        how, style = ("FAILED", "red") if model.failed else ("not measured", "yellow")
        table.add_row(model.model, Text(f"{how}: {model.reason}", style=style))
    return table


def bar(share: float, length: int) -> str:
    """A bar of ``length`` columns at most, in eighths of a column; ``share`` is from 0 to 1."""
    eighths = round(max(0.0, min(share, 1.0)) * length * 8)
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else " ▏▎▍▌▋▊▉"[eighths % 8])


def number(value: float) -> str:
    """About three figures, in as few columns as they need: 1.23, 45.6, 789, 12,345."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def amount(size: int) -> str:
    """Bytes as people say them: 100 B, 1 KiB, 1 MiB."""
    for unit, bytes_in in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % bytes_in == 0:
            return f"{size // bytes_in} {unit}"
    return f"{size:,} B"
