"""The best rate under a limit of latency: the search, what counts, and a real one on a small scale."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from support import made_up

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.cli.lab_best import _table
from proact.cli.stopping import StoppedError
from proact.lab.asked import AskedError
from proact.lab.best import STEPS, Asked, DisturbedError, Found, best, keeps, search, sentence
from proact.lab.server_process import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from proact.lab.results import Measured


@pytest.mark.parametrize("limit", [0.0, 10.0, 333.0, 999.0, 1000.0])
def test_the_search_finds_the_highest_good_rate(limit: float) -> None:
    tried: list[float] = []

    def good(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = search(good, 1000.0)
    assert found <= limit
    assert limit - found <= 1000 / 2**STEPS
    assert len(tried) <= STEPS + 1


def measured(p99: float, unsent: int) -> Measured:
    found = made_up.measured(1000.0, 20.0)
    found["latency"]["percentiles"]["p99"] = p99
    found["unsent"] = unsent
    return found


def test_a_rate_is_good_if_p99_and_sending_keep_the_limit() -> None:
    assert keeps(measured(9e6, 5), 0.01)
    assert not keeps(measured(11e6, 5), 0.01)
    assert not keeps(measured(9e6, 50), 0.01)


def test_five_undisturbed_repeats_give_an_answer() -> None:
    found = Found("epoll", [10.0, 30.0, 20.0, 50.0, 40.0])
    assert found.spread is not None
    assert (found.spread.median, found.spread.low, found.spread.high) == (30, 10, 50)
    few = Found("epoll", [10.0] * 4, disturbed=1)
    assert few.spread is None
    assert few.as_object()["messages_per_second"] is None


ASKED = Asked(0.01, "echo", 10, 1024, ("epoll", "poll", "bare-epoll"), 0.1, 5)


def searched(found: dict[str, Found], outcomes: Callable[[str], float]) -> list[str]:
    """What is told while each search comes out as ``outcomes`` says."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proact.lab.best._search", lambda bench, asked, model: (outcomes(model), False))
        best(ASKED, found, told.append)
    return told


def test_a_disturbed_repeat_is_made_again_but_not_for_ever() -> None:
    tries = dict.fromkeys(ASKED.models, 0)

    def outcome(model: str) -> float:
        tries[model] += 1
        if model == "poll" or (model == "epoll" and tries[model] == 2):
            raise DisturbedError("disturbed, by 1.00 cores by make (1.00)")
        return 100.0 + tries[model]

    found = {name: Found(name) for name in ASKED.models}
    told = searched(found, outcome)
    assert tries == {"epoll": 6, "poll": 10, "bare-epoll": 5}
    assert (found["epoll"].rates, found["epoll"].disturbed) == ([101, 103, 104, 105, 106], 1)
    assert found["poll"].spread is None
    assert "epoll, repeat 2 of 5: disturbed, by 1.00 cores by make (1.00)" in told


def test_a_model_that_fails_is_not_tried_again() -> None:
    def outcome(model: str) -> float:
        if model == "epoll":
            raise ServerError("it fell over")
        return 1.0

    found = {name: Found(name) for name in ASKED.models}
    told = searched(found, outcome)
    assert [line for line in told if line.startswith("epoll")] == ["epoll, FAILED: it fell over"]
    assert len(told) == 11


def test_the_answer_in_one_sentence() -> None:
    found = [
        Found("bare-epoll", [900.0] * 5),
        Found("epoll", [100.0, 110, 120, 130, 140]),
        Found("poll", [80.0, 85, 90, 95, 101]),
        Found("select", [10.0] * 5),
        Found("threads", [10.0] * 4, disturbed=6),
    ]
    assert sentence(ASKED, found) == (
        "Most messages with p99 under 10 ms: epoll, 120 a second (100 to 140), level with poll."
    )
    assert sentence(ASKED, found[4:]).startswith("No answer: of no model there are 5 repeats")
    assert (
        sentence(ASKED, [Found("epoll", [0.0] * 5)]) == "No model answers any messages with p99 under 10 ms."
    )


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_search_that_is_stopped_shows_what_is_known(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(asked: Asked, found: dict[str, Found], tell: object) -> None:
        found["epoll"].rates += [1000.0] * 5
        raise KeyboardInterrupt

    monkeypatch.setattr("proact.cli.lab_best.best", stopped)
    with pytest.raises(StoppedError):
        dispatch(["lab", "best", "--p99", "10ms", "--models", "epoll,poll", *arguments])
    said = capsys.readouterr().out
    if arguments:
        models = json.loads(said)["models"]
        assert [(each["model"], len(each["rates"])) for each in models] == [("epoll", 5), ("poll", 0)]
    else:
        assert said.startswith("Most messages with p99 under 10 ms: epoll, 1,000 a second")
        assert "echo: 100 connections x 1 KiB, p99 under 10 ms" in said
        assert "not measured: 0 of 0 repeats disturbed" in said


@pytest.mark.parametrize("width", [100, 40])
def test_the_table_fits(width: int) -> None:
    found = [
        Found("proact-io_uring", [123456.0] * 5, load_bound=True),
        Found("poll", [1.0], disturbed=9),
        Found("select", reason="select(2) watches no fd past 1023, so at most 1000 connections"),
    ]
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(_table(found, width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "123,456*" in lines[1]
    assert ("█" in out.getvalue()) == (width == 100)


def test_a_search_from_the_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine there is no answer; either way each repeat is accounted for."""
    monkeypatch.setattr("proact.lab.best.STEPS", 1)
    asked = "lab best --p99 500ms --workload wait-1ms --connections 2 --duration 0.05 --models epoll,blocking"
    assert dispatch([*asked.split(), "--json"]) == 0
    found = {each["model"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert found["blocking"]["reason"].startswith("serves one connection")
    assert len(found["epoll"]["rates"]) + found["epoll"]["disturbed"] <= 10
    assert bool(found["epoll"]["messages_per_second"]) == (len(found["epoll"]["rates"]) == 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--p99 fast", "--p99 is 'fast': it takes a time with its unit"),
        ("--p99 0.5", "--p99 is '0.5': it takes a time with its unit"),
        ("--p99 11s", "--p99 is '11s': it must be from 10 µs to 10 s"),
        ("--p99 10ms --repeat 3", "an interval needs 5"),
        ("--p99 10ms --workload churn", "churn has no fixed rate"),
        ("--p99 10ms --connections 1,2", "--connections is '1,2': it takes one whole number"),
        ("--p99 10ms --workload echo,web", "a search is for one workload"),
        ("", "Missing option '--p99'"),
    ],
)
def test_a_wrong_search(arguments: str, message: str) -> None:
    with pytest.raises((CommandError, AskedError)) as error:
        dispatch(["lab", "best", *arguments.split()])
    assert message in str(error.value)
