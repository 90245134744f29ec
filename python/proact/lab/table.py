"""A run's results as tables for a terminal: one for each load, at most 100 columns wide."""

from __future__ import annotations

import io
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.files import FILES
from proact.lab.summary import QUIET, Absent, Block, Load, Row, Winner, blocks, verdict, winners

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rich.console import JustifyMethod

    from proact.lab.export import Difference
    from proact.lab.results import Document

WIDTH: Final = 100
_NARROW: Final = 96  # below this many columns, the bar and the kind give way to the numbers
_LINES: Final = 70  # below this many columns, "when each wins" is lines in place of a table
_NAME: Final = 15

_STYLES: Final = {"proact": "bold", "ceiling": "dim italic"}


def console() -> Console:
    """A console on stdout, as wide as the terminal, at most ``WIDTH``; no terminal: ``WIDTH``, no colour."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # don't fail if the encoding has no bars
    terminal = Console()
    if not sys.stdout.isatty():
        return Console(width=WIDTH, color_system=None, highlight=False)
    return Console(width=min(terminal.width, WIDTH), highlight=False)


def render(document: Document, width: int = WIDTH) -> RenderableType:
    """The whole run: its machine, a table and a verdict for each load, and what was not measured."""
    parts: list[RenderableType] = [_heading(document)]
    found = blocks(document)
    for block in found:
        title = Text(describe(block.load), style="bold")
        parts += ["", title, _table(block, width, document["settings"]["repeat"])]
        if any(row.split for row in block.rows):
            heading = _SPLIT_TITLE.replace("message", block.load.unit)
            parts += ["", Text(heading, style="dim"), _splits(block.rows, width)]
        if any(row.fixed for row in block.rows):
            parts += ["", Text(_MEMORY_TITLE, style="dim"), _memory(block.rows, width)]
        if block.absent:
            parts.append(_absent(block.absent))
        if (cache := CACHES.get(block.load.workload)) is not None:
            parts.append(Text(cache, style="dim"))
        parts += [Text(line, style="dim") for line in (*_ways(block.rows), *notes(block))]
        parts += [Text(line, style="yellow") for line in warnings(block)]
        if block.load.rate is None and block.load.workload not in FILES:
            parts.append(Text(CLOSED_LOOP_NOTE, style="dim"))
        parts += [Text(line) for line in verdict(block)]
    if len(found) > 1 and (best := winners(found)):
        parts += ["", Text("When each wins", style="bold"), _winners(best, width)]
    if found:
        parts += ["", Text(LEGEND + _INTERVALS * (document["settings"]["repeat"] > 1), style="dim")]
    return Group(*parts)


LEGEND: Final = (
    "CPU µs and calls (system calls; counted in a pass of their own) are the server's per message or "
    "operation. KiB/c: its resident memory per connection (slope), measured on a fresh server at several "
    "numbers of connections. Slow: p50 of a request that reads the disk. Italic: ceilings in Rust, no Python."
)

_INTERVALS: Final = " ±: half the interval; the report (--html) has it for CPU, calls and memory as well."

_MEMORY_TITLE: Final = (
    "Memory = fixed + slope x connections, of a fresh server; from, to: 95 % intervals of the line. Kernel: "
    "slabs, stacks, page tables and TCP's buffers per connection, both ends, of the whole machine:"
)

_SPLIT_TITLE: Final = (
    "Where the server's threads were, µs per message (one pass, so no interval; with a probe in the server; "
    "copying is the copy and the protocol's path; queue: runnable, not running; others: kernel workers and "
    "helper threads, beside the sum; ring ops: operations given to io_uring_enter, per message):"
)

SATURATED_NOTE: Final = "* the load had used up its own core: this server may be faster than shown."

CLOSED_LOOP_NOTE: Final = (
    "Closed loop: who waits for an answer sends nothing meanwhile, so a stall of the server delays few "
    "messages, and shows in the slowest answer only (max). --rate sends at fixed "
    "times and counts from these."
)

SLOW_READERS_NOTE: Final = (
    "+MiB: what the server holds more than after one connection, while four clients send up to 32 MiB/s each "
    "and read 64 KiB/s. The other figures are of the clients beside them."
)

TRACED_NOTE: Final = "Calls were counted with ptrace, which slows a server down: they may come out low."


def _heading(document: Document) -> Text:
    facts, settings = document["environment"], document["settings"]
    lines = [
        f"{machine(facts)}, {facts['python']}",
        f"{conditions(document).capitalize()}; seed {document['seed']}",
    ]
    if document["cells"]:
        times = f"{settings['duration']:g} s per cell, after {settings['warmup']:g} s warm-up"
        lines.append(f"{settings['repeat']} x {times}")
    heading = Text("\n".join(lines), style="dim")
    if "stopped" in document:
        heading.append(f"\nStopped early: {document['stopped']}.", style="not dim yellow")
    return heading


def machine(facts: dict[str, Any]) -> str:
    """The machine of a run's environment, in a few words."""
    return f"{facts['cpu']}, {counted(facts['cores'], 'core')}, Linux {facts['kernel']}"


def conditions(document: Document) -> str:
    """How it was measured: ``over loopback, every byte verified; server and load on a core each``."""
    pinned = document["settings"]["pinned"]
    loads = {cell["workload"] for cell in document["cells"]}
    if loads and loads <= FILES.keys():
        where = "the model on a core of its own" if pinned else "not pinned to a core"
        return f"files, every byte verified; {where}"
    where = "on a core each" if pinned else "not pinned to cores"
    here = " (files: in the process of the model)" if loads & FILES.keys() else ""
    return f"over loopback{here}, every byte verified; server and load {where}"


#: What was in memory, for each workload of files.
CACHES: Final = {
    "files-small": "Page cache: emptied of these files before each round, so each comes from the disk once.",
    "files-random": "Page cache: emptied of this file before each round; the kernel does not read ahead.",
    "files-direct": "Page cache: not used (O_DIRECT).",
    "files-append": "Page cache: holds what is appended until fsync has written it to the disk.",
}


def _ways(rows: tuple[Row, ...]) -> list[str]:
    """How the models worked, if they have said so; models that work alike share a line."""
    models: dict[str, list[str]] = {}
    for row in rows:
        if row.how:
            models.setdefault(row.how, []).append(row.model)
    return [f"{', '.join(names)}: {how}." for how, names in models.items()]


def notes(block: Block) -> list[str]:
    """What a load asks besides speed: how connections spread over workers, what slow readers cost."""
    listed = []
    for row in block.rows:
        if row.fullest is not None:
            each = ", ".join(map(str, row.shares))
            interval = f" ({row.fullest.low:.2f} to {row.fullest.high:.2f})" * (row.repeats > 1)
            listed.append(
                f"{row.model}: {sum(row.shares):,} connections on {len(row.shares)} workers: {each}; "
                f"the fullest has {row.fullest.median:.2f}{interval} times its even share."
            )
    if any(row.grown is not None for row in block.rows):
        listed.append(SLOW_READERS_NOTE)
    return listed


def warnings(block: Block) -> list[str]:
    """What makes the figures of a load less than they seem."""
    listed = [
        f"{row.model}: {counted(len(row.failures), 'repeat')} failed: {row.failures[0]}"
        for row in block.rows
        if row.failures
    ]
    if block.others_cpu > QUIET:
        listed.append(f"Unreliable: other programs kept {block.others_cpu:.1f} cores busy meanwhile.")
    if block.uncounted:
        listed.append(f"System calls were not counted: {block.uncounted}")
    if block.traced:
        listed.append(TRACED_NOTE)
    if lost := max((row.split.get("lost", 0) for row in block.rows if row.split), default=0):
        listed.append(f"The probe had no room for {counted(lost, 'thread')} of a server.")
    if any(row.load_bound for row in block.rows):
        listed.append(SATURATED_NOTE)
    return listed


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of numbers: its heading, its width, and the text of a row."""

    heading: str
    size: int
    text: Callable[[Row], str | Text]


def fitting(sizes: Mapping[str, int], width: int, spare: Iterable[str]) -> dict[str, int]:
    """The columns of a table and their widths, without as many of the ``spare`` ones as need be to fit."""
    left = dict(sizes)
    for heading in spare:
        if sum(left.values()) + len(left) - 1 <= width:
            break
        left.pop(heading, None)
    return left


def _fitting(columns: list[_Column], width: int, spare: tuple[str, ...]) -> list[_Column]:
    """The columns of numbers that fit beside the name. Those with one heading stay or go together."""
    sizes = Counter({"model": _NAME})
    for column in columns:
        sizes[column.heading] += column.size + (column.heading in sizes)  # with the space between them
    left = fitting(sizes, width, spare)
    return [column for column in columns if column.heading in left]


def _numbers(rows: Iterable[Row], columns: list[_Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", min_width=_NAME, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, width=column.size, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.shown, *(column.text(row) for column in columns), style=_STYLES.get(row.family, ""))
    return table


def _splits(rows: tuple[Row, ...], width: int) -> Table:
    def each(part: str) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            assert row.split is not None
            total = cast("float", row.split.get(part, 0.0))
            per = total / row.split["messages"] * (1 if part == "ring_ops" else 1e6)
            return "-" if part == "ring_ops" and not total else number(per)

        return text

    parts = (
        "waiting",
        "copying",
        "asking",
        "run_queue",
        "user",
        "stalled",
        "probe",
        "wall",
        "others",
        "ring_ops",
    )
    names = {"run_queue": "queue", "wall": "sum", "ring_ops": "ring ops"}
    columns = [
        _Column(names.get(part, part), max(7, len(names.get(part, part))), each(part)) for part in parts
    ]
    spare = ("probe", "sum", "ring ops", "others", "stalled", "queue", "user", "asking")
    measured = (row for row in rows if row.split is not None and row.split["messages"])
    return _numbers(measured, _fitting(columns, width, spare))


def _memory(rows: tuple[Row, ...], width: int) -> Table:
    def each(what: str, end: str, unit: int) -> Callable[[Row], str]:
        def text(row: Row) -> str:
            spread = getattr(row, what)
            return "-" if spread is None else _signed(getattr(spread, end) / unit)

        return text

    mebi, kibi = 1 << 20, 1 << 10
    columns = [_Column("fixed MiB", 10, each("fixed", "median", mebi))]
    for what, heading in (("memory", "slope KiB"), ("kernel", "kernel KiB")):
        columns += [
            _Column(shown, 10, each(what, end, kibi))
            for shown, end in ((heading, "median"), ("from", "low"), ("to", "high"))
        ]
    measured = (row for row in rows if row.fixed is not None and row.memory is not None)
    return _numbers(measured, _fitting(columns, width, ("from", "to", "kernel KiB")))


def _signed(value: float) -> str:
    """A number that may be below zero, as the end of an interval around little is."""
    return f"-{number(-value)}" if value < 0 else number(value)


def describe(load: Load, *, open_loop: bool = False) -> str:
    """A load in a few words: ``echo: 1,000 connections, 10 active x 1 KiB, 500 messages/s``.

    ``open_loop``: its rate is being searched for.
    """
    if load.workload in FILES:
        return f"{load.workload}: {load.connections:,} at once x {amount(load.size)}"
    active = f", {load.active:,} active" if load.active != load.connections else ""
    rate = f", {load.rate:,.6g} messages/s" if load.rate is not None else ", closed loop" * (not open_loop)
    many = counted(load.connections, "connection")
    return f"{load.workload}: {many}{active} x {amount(load.size)}{rate}"


def _winners(listed: list[Winner], width: int) -> RenderableType:
    if width < _LINES:
        return Text(
            "\n".join(
                f"{describe(winner.load)}\n  fastest: {', '.join(winner.fastest) or '-'}"
                f"\n  least CPU: {', '.join(winner.thriftiest)}"
                for winner in listed
            )
        )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("load", overflow="fold", ratio=4)
    table.add_column("fastest", overflow="fold", ratio=3)
    table.add_column("ahead", justify="right", no_wrap=True)
    table.add_column("least CPU", overflow="fold", ratio=3)
    for winner in listed:
        table.add_row(
            describe(winner.load),
            ", ".join(winner.fastest) or "-",
            "-" if winner.gain is None else str(winner.gain),
            ", ".join(winner.thriftiest),
        )
    return table


#: The columns that a narrow terminal can do without, the first ones first.
_SPARE: Final = ("KiB/c", "thr.", "calls", "p99.9", "±", "p50 µs", "unsent", "slow ms", "max", "p99")


def _table(block: Block, width: int, repeats: int) -> Table:
    columns = [
        _Column(
            "ops/s" if block.load.workload in FILES else "msgs/s",
            10,
            lambda row: f"{row.rate.median:,.0f}{'*' if row.load_bound else ''}",
        ),
        _Column("p50 µs", 7, lambda row: number(row.p50)),
        _Column("p99", 7, lambda row: number(row.p99)),
        _Column("p99.9", 7, lambda row: number(row.p999)),
        _Column("CPU µs", 6, lambda row: number(row.cpu_us.median, 6)),
        _Column("calls", 6, lambda row: "-" if row.calls is None else number(row.calls.median, 6)),
        _Column("thr.", 4, lambda row: "-" if row.threads is None else f"{row.threads}"),
    ]
    if any(row.grown is not None for row in block.rows):
        columns.append(_Column("+MiB", 5, lambda row: "-" if row.grown is None else mebi(row.grown.median)))
    else:
        columns.append(
            _Column(
                "KiB/c", 5, lambda row: "-" if row.memory is None else number(row.memory.median / 1024, 5)
            )
        )
    if repeats > 1:
        columns.insert(1, _Column("±", 4, lambda row: f"{row.rate.half_range:.0%}"))
    if any(row.slow is not None for row in block.rows):
        columns.append(_Column("slow ms", 7, lambda row: "-" if row.slow is None else number(row.slow / 1e3)))
    if any(row.unsent > 0 for row in block.rows):
        columns.append(_Column("unsent", 6, lambda row: f"{row.unsent:.1%}"))
    slowest = _Column("max", 7, lambda row: number(row.slowest))
    name = max([_NAME, *(len(row.shown) for row in block.rows)])
    length = WIDTH - name - 1 - 14 - sum(column.size + 1 for column in columns) - 1
    third = next(at for at, column in enumerate(columns) if column.heading == "p99.9")
    if width >= _NARROW and length > slowest.size:
        columns.insert(third + 1, slowest)
        length -= slowest.size + 1
    else:  # in a closed loop, the slowest answer alone shows a stall
        columns[third] = slowest
    columns = _fitting(columns, width - (name - _NAME), _SPARE)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", width=name, no_wrap=True)
    roomy = width >= _NARROW and length >= 0
    if roomy:
        table.add_column("I/O model", width=13, no_wrap=True)
        if length > 0:
            table.add_column("", width=length, no_wrap=True)
    for column in columns:
        table.add_column(column.heading, width=column.size, justify="right", no_wrap=True)
    best = max((row.rate.median for row in block.rows), default=1.0)
    for row in block.rows:
        cells: list[str | Text] = [row.shown]
        if roomy:
            cells.append(row.kind)
            if length > 0:
                cells.append(Text(bar(row.rate.median / best, length), style="cyan"))
        cells += [column.text(row) for column in columns]
        table.add_row(*cells, style=_STYLES.get(row.family, ""))
    return table


#: The columns of a comparison, and those that a narrow terminal can do without.
_COMPARED: Final = {
    "model": _NAME,
    "first/s": 9,
    "second/s": 9,
    "ratio": 6,
    "CPU": 6,
    "p99": 6,
    "second is": 9,
}
_COMPARED_SPARE: Final = ("p99", "first/s", "CPU", "second/s")


def render_differences(
    documents: tuple[Document, Document], found: list[Difference], width: int = WIDTH
) -> RenderableType:
    """Two runs side by side."""
    columns = fitting(_COMPARED, width, _COMPARED_SPARE)
    machines = [
        Text(
            f"{name}: {document['started']}, {machine(facts)}, {facts['python']}, "
            f"proact {facts['packages'].get('proact', 'unknown')}",
            style="dim",
        )
        for name, document in zip(("first ", "second"), documents, strict=True)
        for facts in (document["environment"],)
    ]
    parts: list[RenderableType] = [*machines]
    for shown in dict.fromkeys(each.load for each in found):
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for heading, size in columns.items():
            justify: JustifyMethod = "left" if heading in ("model", "second is") else "right"
            table.add_column(heading, min_width=size, justify=justify, no_wrap=True)
        for each in (each for each in found if each.load == shown):
            ratios = (f"{value:.2f}x" for value in (each.rate, each.cpu, each.p99))
            style = {"faster": "green", "slower": "red"}.get(each.verdict, "")
            rates = (f"{value:,.0f}" for value in (each.before, each.after))
            cells: list[str | Text] = [each.model, *rates, *ratios, Text(each.verdict, style)]
            named = zip(_COMPARED, cells, strict=True)
            table.add_row(*(cell for heading, cell in named if heading in columns))
        parts += ["", Text(describe(shown), style="bold"), table]
    return Group(*parts)


def _absent(models: tuple[Absent, ...]) -> Table:
    """The rows of the models without numbers: name and reason."""
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


def number(value: float, columns: int = 7) -> str:
    """About three digits in at most so many columns (4 or more): 1.23, 45.6, 789, 12,345, 678k, 9M."""
    if value < 9.995:
        return f"{value:z.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    shown = (f"{value / scale:,.0f}{unit}" for scale, unit in ((1, ""), (1e3, "k"), (1e6, "M")))
    return next((text for text in shown if len(text) <= columns), f"{value:.0e}")


def mebi(count: float) -> str:
    """A number of bytes in MiB."""
    return number(count / (1 << 20), 5)


def counted(count: int, what: str) -> str:
    """A number of things: ``1 core``, ``1,000 connections``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def amount(size: int) -> str:
    """Bytes as people write them: 100 B, 1 KiB, 1 MiB."""
    for unit, bytes_in in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % bytes_in == 0:
            return f"{size // bytes_in} {unit}"
    return f"{size:,} B"
