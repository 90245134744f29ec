"""The best rate under a limit of latency: the search, what counts, and a real one on a small scale."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support import made_up

from proact.cli.app import dispatch
from proact.cli.error import CommandError
from proact.lab.asked import AskedError
from proact.lab.best import STEPS, Found, keeps, search

if TYPE_CHECKING:
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


def test_a_search_from_the_shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine there is no answer; either way each repeat is accounted for."""
    monkeypatch.setattr("proact.lab.best.STEPS", 1)
    asked = "lab best --p99 500ms --workload wait-1ms --connections 2 --duration 0.05 --models epoll,blocking"
    assert dispatch([*asked.split(), "--json"]) == 0
    found = {each["model"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert found["blocking"]["reason"].startswith("serves one connection")
    assert len(found["epoll"]["rates"]) + found["epoll"]["disturbed"] == 5
    assert bool(found["epoll"]["messages_per_second"]) == (len(found["epoll"]["rates"]) == 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--p99 fast", "--p99 is 'fast': it takes a time with its unit"),
        ("--p99 10ms --repeat 3", "an interval needs 5"),
        ("--p99 10ms --workload churn", "churn has no fixed rate"),
        ("--p99 10ms --connections 1,2", "a search is for one workload"),
        ("", "Missing option '--p99'"),
    ],
)
def test_a_wrong_search(arguments: str, message: str) -> None:
    with pytest.raises((CommandError, AskedError)) as error:
        dispatch(["lab", "best", *arguments.split()])
    assert message in str(error.value)
