"""The reference as a file: results without what an answer does not need, their cells in columns.

A wheel is to hold less than 1.5 MB. As rows the reference takes 240 KB of that, compressed; as columns, with
the digits that are worth their place, and with memory in steps of 64 KiB, a third.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from proact.lab.results import ResultsError, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proact.lab.results import Document

#: What stands in a column for a cell that lacks the field.
_ABSENT: Final = "absent"

#: Bytes. The memory that connections take is measured in pages, and differs by more from time to time.
_STEP: Final = 1 << 16

#: The fields that are memory, and what follows their names in the file, where they are counted in steps.
_MEMORY: Final = frozenset({"resident", "resident_before", "kernel"})
_STEPS: Final = f" x{_STEP}"

#: What no answer is decided by.
_BESIDE: Final = frozenset(
    {
        *("p90", "p99.9", "p99.99", "max", "mean", "bytes", "connect_seconds", "load_cpu_seconds"),
        *("switches_voluntary", "switches_involuntary", "others_cpu", "cores"),
    }
)


def slim(document: Document) -> dict[str, Any]:
    """A run without histograms, splits, timelines, culprits and needless digits."""
    cells = []
    for cell in document["cells"]:
        measured: Any = cell["measured"]
        if measured is not None:
            latency = measured["latency"]
            percentiles = {name: _rounded(value, name) for name, value in latency["percentiles"].items()}
            measured = {
                **measured,
                "latency": {**latency, "percentiles": percentiles, "histogram": []},
                "split": None,
                "unsplit": None,
            }
            if measured.get("disturbance"):
                measured["disturbance"] = {**measured["disturbance"], "by": {}}
            if occupied := measured.get("occupied"):
                measured["occupied"] = {
                    name: _to_step(value) if name.startswith("resident") else value
                    for name, value in occupied.items()
                }
            if held := measured.get("held"):
                # Of the kernel's memory only the growth says something.
                measured["held"] = [
                    {
                        "connections": each["connections"],
                        "resident": _to_step(each["resident"]),
                        "kernel": _to_step(each["kernel"] - held[0]["kernel"]),
                    }
                    for each in held
                ]
        cells.append(_rounded_floats({**cell, "measured": measured}))
    return {**document, "cells": cells, "timelines": [], "claims": []}


def _to_step(memory: int) -> int:
    return round(memory / _STEP) * _STEP


def _rounded(value: float, name: str) -> float:
    """Three digits, of the same type: repeats differ in the second. Two for what is only looked at beside."""
    digits = 2 if name in _BESIDE else 3
    return type(value)(float(f"{value:.{digits}g}"))


def _rounded_floats(value: Any, name: str = "") -> Any:
    if isinstance(value, float) or (name == "bytes" and value):
        return _rounded(value, name)
    if isinstance(value, dict):
        return {each: _rounded_floats(inner, each) for each, inner in value.items()}
    return value


def _in_steps(name: str, value: Any) -> tuple[str, Any]:
    """A field as the file has it: three digits of memory, not eight, under a name that says so."""
    if name not in _MEMORY:
        return name, value
    steps = [each // _STEP for each in value] if isinstance(value, list) else value // _STEP
    return name + _STEPS, steps


def _in_bytes(name: str, value: Any) -> tuple[str, Any]:
    """The field again."""
    if not name.endswith(_STEPS):
        return name, value
    memory = [each * _STEP for each in value] if isinstance(value, list) else value * _STEP
    return name.removesuffix(_STEPS), memory


def _leaves(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with the names that lead to it."""
    for name, each in value.items():
        if isinstance(each, dict) and each:
            yield from _leaves(each, f"{before}{name}/")
        elif isinstance(each, list) and each and isinstance(each[0], dict):
            columns = ((key, [item[key] for item in each]) for key in each[0])
            yield f"{before}{name}[]", dict(_in_steps(key, column) for key, column in columns)
        else:
            leaf, stored = _in_steps(name, each)
            yield before + leaf, stored


def _cell(names: list[str], values: tuple[Any, ...]) -> dict[str, Any]:
    """The cell whose leaves these are."""
    cell: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if value == _ABSENT:
            continue
        *path, last = name.split("/")
        place = cell
        for step in path:
            place = place.setdefault(step, {})
        if last.endswith("[]"):
            columns = dict(_in_bytes(key, column) for key, column in value.items())
            rows = zip(*columns.values(), strict=True)
            place[last[:-2]] = [dict(zip(columns, row, strict=True)) for row in rows]
        else:
            leaf, found = _in_bytes(last, value)
            place[leaf] = found
    return cell


def write(document: Document, file: Path) -> None:
    """Write the reference; whatever ends this, the file is whole, with what was in it before or with all."""
    slimmed = slim(document)
    rows = [dict(_leaves(cell)) for cell in slimmed.pop("cells")]
    names = dict.fromkeys(name for row in rows for name in row)
    slimmed["columns"] = {name: [row.get(name, _ABSENT) for row in rows] for name in names}
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(slimmed, separators=(",", ":")), encoding="utf-8")
    beside.replace(file)


def read(file: Path) -> Document:
    """Read what `write` has written. Raises ResultsError, or OSError if it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        columns = found.pop("columns")
        found["cells"] = [_cell(list(columns), row) for row in zip(*columns.values(), strict=True)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(f"{file} is no reference of `proact lab choose`: {error!r}") from None
    check(found, file)
    return cast("Document", found)
