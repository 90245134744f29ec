"""A claim beside noise: the verdict is the one of a quiet machine, or there is none.

This claim holds wherever Linux runs (a process that multiplexes is blocked in the call that asks), so no
quiet run is needed to know its verdict, and it takes seconds. `make claims-noise` compares all claims with
quiet runs, and makes noise of more kinds.
"""

from __future__ import annotations

import pytest
from support.claims_noise import Found, Progress, disagree, table, turned
from support.noise import verdicts

CLAIM = "blocked-in-select"


@pytest.mark.parametrize("kind", ["two busy loops", "one core"])
def test_no_noise_turns_a_verdict_round(kind: str) -> None:
    verdict, because = verdicts(CLAIM, kind)[CLAIM]
    assert verdict in ("supported", "not measured"), because
    if kind == "two busy loops":  # they leave no core free, so nothing is undisturbed
        assert verdict == "not measured"
    if verdict == "not measured":
        assert "busy" in because


def test_a_claim_that_is_stopped_has_no_verdict() -> None:
    assert verdicts(CLAIM, None, limit=0.05) == {}


def test_only_verdicts_can_disagree() -> None:
    assert not disagree({"quiet": ("supported", ""), "nice": ("not measured", ""), "one": ("supported", "")})
    assert not disagree({"quiet": ("not measured", ""), "nice": ("supported", "")})
    assert disagree({"quiet": ("not measured", ""), "nice": ("supported", ""), "one": ("contradicted", "")})
    assert disagree({"quiet": ("depends", ""), "nice": ("supported", "")})


def test_a_verdict_that_has_turned_is_shown_with_every_condition() -> None:
    found: Found = {
        "quiet": {"one": ("supported", "a"), "two": ("supported", "b")},
        "nice": {"one": ("contradicted", "c"), "two": ("not measured", "d")},
    }
    assert turned(found) == ["one, quiet: supported. a", "one, nice: contradicted. c"]
    rows = [line.split() for line in table(["one", "two"], found).splitlines()]
    assert rows == [
        ["claim", "quiet", "nice"],
        ["one", "supported", "contradicted"],
        ["two", "supported", "not", "measured"],
    ]


def test_progress_is_shown_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("nice")
    progress("[1/7] epoll, echo: 1 connection x 1 KiB: 9 messages/s")
    progress._next = 0.0
    progress("timeline of epoll")
    progress("[2/7] epoll, echo: 1 connection x 1 KiB: 9 messages/s")
    progress("[3/7] epoll, echo: 1 connection x 1 KiB: 9 messages/s")
    assert capsys.readouterr().out.startswith("nice: 2 of 7 cells, ")
