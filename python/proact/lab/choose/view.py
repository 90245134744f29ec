"""An answer for a terminal: the sentence, a bar for each model, and where each figure comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proact.lab.choose.answer import Answer, winners
from proact.lab.table import WIDTH, bar, describe, fitting, number

if TYPE_CHECKING:
    from proact.lab.choose.points import Point

#: Loads that are drawn; the rest is in the results.
_DRAWN: Final = 2

_NAME: Final = 15
_BAR: Final = 8  # columns, at least

#: The figures with their columns, and those that a narrow terminal can do without.
_FIGURES: Final = {"msgs/s": 10, "±": 4, "CPU µs": 7, "p99 µs": 8}
_SPARE: Final = ("±", "p99 µs", "CPU µs")


def render_answer(answer: Answer, source: str, width: int = WIDTH) -> RenderableType:
    """The answer, with its chart and its evidence; ``source`` says where the results come from."""
    parts: list[RenderableType] = [Text(answer.sentence, style="bold" if answer.models else "bold yellow")]
    for point in answer.points[:_DRAWN]:
        if point.rows:
            parts += ["", Text(describe(point.load), style="dim"), _chart(answer, point, width)]
    if len(answer.points) > _DRAWN:
        more = "; ".join(describe(point.load) for point in answer.points[_DRAWN:])
        parts.append(Text(f"and: {more}", style="dim"))
    parts.append("")
    if answer.unknown:
        parts.append(Text(f"Not compared: {not_compared(answer)}.", style="dim"))
    parts.append(Text(f"Evidence: {source}.", style="dim"))
    parts.append(
        Text(
            f"To measure it yourself: proact lab choose --measure, or {answer.question.command}", style="dim"
        )
    )
    return Group(*parts)


def not_compared(answer: Answer) -> str:
    """The models that could not be compared, those of one reason together."""
    alike: dict[str, list[str]] = {}
    for name, reason in answer.unknown.items():
        alike.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in alike.items())


def _chart(answer: Answer, point: Point, width: int) -> Table:
    """Messages per second as bars, the recommended models first. A narrow terminal has fewer figures."""
    best = winners(point.rows) if len(point.rows) > 1 else ()
    columns = fitting({"model": _NAME, "": _BAR} | _FIGURES, width, _SPARE)
    shown = {heading: size for heading, size in columns.items() if heading in _FIGURES}
    length = max(_BAR, width - _NAME - 2 - sum(size + 1 for size in shown.values()))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("model", width=_NAME, no_wrap=True)
    table.add_column("", width=length, no_wrap=True)
    for heading, size in shown.items():
        table.add_column(heading, width=size, justify="right", no_wrap=True)
    most = max(row.rate.median for row in point.rows)
    for row in sorted(point.rows, key=lambda each: (each.model not in best, -each.rate.median)):
        chosen = row.model in answer.models
        figures = {
            "msgs/s": f"{row.rate.median:,.0f}{'*' if row.load_bound else ''}",
            "±": f"{row.rate.half_range:.0%}",
            "CPU µs": number(row.cpu_us.median),
            "p99 µs": number(row.p99, 8),
        }
        table.add_row(
            row.model,
            Text(bar(row.rate.median / most, length), style="green" if chosen else "dim"),
            *(figures[heading] for heading in shown),
            style="bold" if chosen else "",
        )
    return table
