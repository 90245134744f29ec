"""Damaged results: whatever was changed in a file, it is refused in one line, or everything can be drawn."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from support import made_up

from proact.cli.app import dispatch
from proact.lab.choose.answer import answer
from proact.lab.choose.question import question
from proact.lab.export import differences, to_csv
from proact.lab.report.page import to_html
from proact.lab.results import ResultsError, load
from proact.lab.view import render_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What a value becomes; ``DROPPED`` takes it out.
DROPPED = object()
ODD = ("\x1b[2J", "\ud800", DROPPED, None, 0, -1, 0.5, 1e308, 2**70, "", "x", [], {}, True, [0], {"x": 1})


def whole() -> Any:
    """Results that have a bit of everything."""
    document: Any = made_up.run(connections=(1, 10), repeats=5)
    keep = {"threads", "epoll", "poll", "proact-epoll"}
    document["cells"] = [cell for cell in document["cells"] if cell["model"] in keep]
    document["models"] = {name: facts for name, facts in document["models"].items() if name in keep}
    measured = document["cells"][0]["measured"]
    measured["held"] = [
        {"connections": count, "resident": 10_000 * count, "kernel": 100 * count} for count in (0, 4, 8)
    ]
    measured["shares"] = [3, 2]
    measured["lazy"] = {"sent": 10, "read": 5}
    measured["disturbance"] = {"cores": 0.5, "by": {"make": 0.5}}
    document["settings"]["no_timeline"] = {"poll": "not measured: no probe"}
    document["claims"][0]["conditions"] = {
        "cores": 2,
        "pinned": True,
        "measured": 3,
        "disturbed": 0,
        "worst": None,
    }
    return document


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in it."""
    if above:
        yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*above, key))


def changed(document: Any, place: tuple[Any, ...], to: Any) -> Any:
    damaged = copy.deepcopy(document)
    at = damaged
    for key in place[:-1]:
        at = at[key]
    if to is DROPPED:
        del at[place[-1]]
    else:
        at[place[-1]] = to
    return damaged


def use(file: Path, intact: Any, html: bool) -> bool:
    """Load it and draw everything; return whether it was refused. Any other exception is a failure."""
    try:
        document = load(file)
    except ResultsError as error:
        if "\n" in str(error):
            raise AssertionError(str(error)) from error
        return True
    out = Console(file=io.StringIO(), width=100)
    out.print(render_all(document, 100))
    to_csv(document)
    differences(document, intact)
    answer(question("10", "", "nothing", "1K"), document)
    if html:
        to_html(document)
    return False


@pytest.mark.parametrize("seed", range(8))
def test_one_value_is_another(seed: int, tmp_path: Path) -> None:
    document, file = whole(), tmp_path / "results.json"
    chance = random.Random(seed)
    # The first cell, and what is not a cell: the other cells are like it.
    every = [place for place in places(document) if place[0] != "cells" or place[1:2] in ((), (0,))]
    refused = 0
    for number in range(60):
        place, to = chance.choice(every), chance.choice(ODD)
        file.write_text(json.dumps(changed(document, place, to)))
        try:
            refused += use(file, document, html=number % 6 == 0)
        except Exception as error:
            raise AssertionError(f"{place} became {'nothing' if to is DROPPED else to!r}") from error
    assert refused > 5


def test_an_intact_file_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(whole()))
    assert use(file, whole(), html=True) is False


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'{"schema": true}',
        b'{"schema": 3}',
        b'{"schema": NaN}',
        b'{"schema": 3, "cells": [], "seed": 1e999}',
        json.dumps(whole()).encode()[:-100],
        json.dumps(whole()).replace('"seconds": 1.0', '"seconds": NaN').encode(),
        json.dumps(whole()).replace('"messages": ', '"messages": 1e').encode(),
    ],
    ids=range(11),
)
def test_what_is_no_results_file(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(text)
    with pytest.raises(ResultsError) as caught:
        load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", ["\x1b]0;mine\x07", "\ud83d", "a\x00b"])
@pytest.mark.parametrize("place", ["model", "reason", "claim"])
def test_no_text_commands_a_terminal_or_can_not_be_written(odd: str, place: str, tmp_path: Path) -> None:
    document: Any = whole()
    if place == "model":
        document["models"][odd] = document["models"]["epoll"]
    elif place == "reason":
        document["cells"][0]["reason"] = odd
    else:
        document["claims"][0]["because"] = odd
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document))
    with pytest.raises(ResultsError, match="is damaged: "):
        load(file)


def test_names_that_only_the_report_shows_can_be_written(tmp_path: Path) -> None:
    document: Any = whole()
    document["environment"]["sysctl"] = {"\ud800": "\ud800"}
    file, page = tmp_path / "results.json", tmp_path / "page.html"
    file.write_text(json.dumps(document))
    dispatch(["lab", "report", str(file), "--html", str(page)])
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
