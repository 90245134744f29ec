"""Owns: one case as a table, for a terminal and for a Markdown page. The figures are stats.py's."""

from __future__ import annotations

from typing import Any

from benchmarks import stats
from benchmarks.contenders import ALL, BASELINE


def quantity(value: float) -> str:
    """A figure with three significant digits and a thousand's letter: 84.1 k."""
    letter = ""
    if value >= 1e6:
        value, letter = value / 1e6, " M"
    elif value >= 1e3:
        value, letter = value / 1e3, " k"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{letter}"


def times(spread: stats.Spread | None) -> str:
    """A ratio with its spread over the rounds."""
    return "—" if spread is None else f"{spread.median:.2f} [{spread.low:.2f}–{spread.high:.2f}]"


def rows(case: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and body of a case's table, the fastest contender first, those that failed last."""
    runs = case["runs"]
    echo = case["kind"] == "echo"
    head = ["", f"{case['unit']}/s", "least–most", f"× {BASELINE}", "CPU µs", f"CPU × {BASELINE}"]
    if echo:
        head += ["p50 µs", "p99 µs"]
    body: list[tuple[float, list[str]]] = []
    for name in stats.present(runs, ALL):
        rate, cpu = stats.figure(runs, name, "rate"), stats.figure(runs, name, "cpu_us")
        if rate is None or cpu is None:
            failed = stats.errors(runs, name)
            body.append((-1, [name, "failed: " + "; ".join(failed)] + [""] * (len(head) - 2)))
            continue
        row = [
            name,
            quantity(rate.median),
            f"{quantity(rate.low)}–{quantity(rate.high)}",
            times(stats.ratio(runs, name, BASELINE, "rate")),
            quantity(cpu.median),
            times(stats.ratio(runs, name, BASELINE, "cpu_us")),
        ]
        for key in ("p50_us", "p99_us") if echo else ():
            latency = stats.figure(runs, name, key)
            row.append(quantity(latency.median) if latency else "—")
        body.append((rate.median, row))
    body.sort(key=lambda pair: -pair[0])
    return head, [row for _, row in body]


def as_text(case: dict[str, Any]) -> str:
    """The table for a terminal."""
    head, body = rows(case)
    # A failure's message may be long: it has its line to itself and widens no column.
    sound = [row for row in body if row[2]]
    widths = [max(len(row[i]) for row in [head, *sound]) for i in range(len(head))]
    lines = [f"{case['title']}  ({case['name']})"]
    for row in [head, *body]:
        if row in sound or row is head:
            cells = [
                row[0].ljust(max(widths[0], 15)),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells))
        else:
            lines.append(f"  {row[0].ljust(max(widths[0], 15))}  {row[1]}")
    return "\n".join(lines)


def as_markdown(case: dict[str, Any]) -> str:
    """The table for a page."""
    head, body = rows(case)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in body:
        row = [cell.replace("|", "\\|") for cell in row]
        name = f"**{row[0]}**" if row[0].startswith("proact-") else row[0]
        lines.append("| " + " | ".join([name, *row[1:]]) + " |")
    return "\n".join(lines)
